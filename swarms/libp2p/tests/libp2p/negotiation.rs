//! multistream-select between two ends, and against peers that break its rules.

use std::io::ErrorKind;

use p2p_libp2p::negotiate::{MAX_LINE, MAX_PROPOSALS, NegotiateError, Negotiated};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Returns the answer of a listener that supports `/yes` to these bytes, and what it accepted.
async fn listen(bytes: &[u8]) -> (Vec<u8>, Result<(), NegotiateError>) {
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(bytes).await.expect("room");
    theirs.shutdown().await.expect("an open pipe");
    let mut listener = Negotiated::new(ours);
    let accepted = listener
        .listen(|protocol| (protocol == "/yes").then_some(()))
        .await;
    drop(listener);
    let mut answer = Vec::new();
    theirs.read_to_end(&mut answer).await.expect("an open pipe");
    (answer, accepted)
}

/// Returns what a dialler of `/a` and `/b` makes of these bytes.
async fn dial(bytes: &[u8]) -> Result<usize, NegotiateError> {
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(bytes).await.expect("room");
    theirs.shutdown().await.expect("an open pipe");
    Negotiated::new(ours).dial(&["/a", "/b"]).await
}

#[tokio::test]
async fn the_first_common_protocol_is_agreed_on_and_data_follows() {
    let (ours, theirs) = duplex(1 << 10);
    let (mut dialler, mut listener) = (Negotiated::new(ours), Negotiated::new(theirs));
    let dialling = async {
        assert_eq!(
            dialler
                .dial(&["/no", "/yes", "/also"])
                .await
                .expect("a common protocol"),
            1
        );
        dialler.write_all(b"data").await.expect("room");
        dialler.shutdown().await.expect("an open pipe");
    };
    let listening = async {
        let accept = |protocol: &str| (protocol != "/no").then(|| protocol.to_owned());
        assert_eq!(listener.listen(accept).await.expect("a common protocol"), "/yes");
        let mut data = String::new();
        listener.read_to_string(&mut data).await.expect("an open pipe");
        assert_eq!(data, "data");
    };
    tokio::join!(dialling, listening);
}

#[tokio::test]
async fn bytes_behind_the_proposal_belong_to_the_protocol() {
    let (ours, mut theirs) = duplex(1 << 10);
    theirs
        .write_all(&[HEADER, b"\x05/yes\ndata"].concat())
        .await
        .expect("room");
    let mut listener = Negotiated::new(ours);
    listener
        .listen(|protocol| (protocol == "/yes").then_some(()))
        .await
        .expect("a valid proposal");
    let mut data = [0; 4];
    listener.read_exact(&mut data).await.expect("the data is here");
    assert_eq!(&data, b"data");
}

#[tokio::test]
async fn a_listener_answers_a_header_alone_before_the_proposal() {
    let (ours, mut theirs) = duplex(1 << 10);
    let mut listener = Negotiated::new(ours);
    let dialling = async {
        theirs.write_all(HEADER).await.expect("room");
        let mut header = [0; 20];
        theirs.read_exact(&mut header).await.expect("an answer");
        assert_eq!(header, HEADER);
        theirs.write_all(b"\x05/yes\n").await.expect("room");
    };
    let (accepted, ()) = tokio::join!(listener.listen(|_| Some(())), dialling);
    accepted.expect("a valid proposal");
}

#[tokio::test]
async fn unknown_protocols_and_ls_are_refused_until_the_limit() {
    let (answer, accepted) = listen(&[HEADER, b"\x04/no\n\x03ls\n\x05/yes\n"].concat()).await;
    accepted.expect("the third proposal");
    assert_eq!(answer, [HEADER, b"\x03na\n\x03na\n\x05/yes\n"].concat());

    let endless = [HEADER, &b"\x04/no\n".repeat(MAX_PROPOSALS + 1)].concat();
    assert!(matches!(listen(&endless).await.1, Err(NegotiateError::TooMany)));
    // What follows a refused lazy proposal is no message; the refusal is sent all the same.
    let (answer, refused) = listen(&[HEADER, b"\x04/no\n\x04data"].concat()).await;
    assert!(matches!(refused, Err(NegotiateError::Malformed(_))));
    assert_eq!(answer, [HEADER, b"\x03na\n"].concat());
    let ended = [HEADER, b"\x04/no\n"].concat();
    assert!(matches!(listen(&ended).await.1, Err(NegotiateError::Refused)));
}

#[tokio::test]
async fn garbage_ends_a_negotiation() {
    assert!(matches!(
        listen(b"\x05/yes\n").await.1,
        Err(NegotiateError::Header)
    ));
    assert!(matches!(
        listen(b"GET / HTTP/1.1\r\n\r\n").await.1,
        Err(NegotiateError::Ended)
    ));
    assert!(matches!(listen(b"").await.1, Err(NegotiateError::Ended)));
    assert!(matches!(
        listen(&[HEADER, b"\xff\xff\x01"].concat()).await.1,
        Err(NegotiateError::Malformed(_))
    ));
    let long = [HEADER, &[0x81, 0x08], &[b'a'; MAX_LINE][..], b"\n"].concat();
    assert!(matches!(listen(&long).await.1, Err(NegotiateError::Malformed(_))));

    assert!(matches!(dial(b"\x03/a\n").await, Err(NegotiateError::Header)));
    assert!(matches!(
        dial(&[HEADER, b"\x05/yes\n"].concat()).await,
        Err(NegotiateError::Answer)
    ));
    assert!(matches!(
        dial(&[HEADER, b"\x03na\n\x03na\n"].concat()).await,
        Err(NegotiateError::Refused)
    ));
    assert!(matches!(
        dial(&[HEADER, b"\x03na\n\x03/b\n"].concat()).await,
        Ok(1)
    ));
    assert!(matches!(dial(HEADER).await, Err(NegotiateError::Ended)));
}

#[tokio::test]
async fn a_lazy_proposal_leaves_with_the_data_and_its_answer_is_read_first() {
    let (ours, mut theirs) = duplex(1 << 10);
    let mut dialler = Negotiated::new(ours);
    dialler.dial_lazily("/yes".into()).await.expect("room");
    dialler.write_all(b"request").await.expect("room");
    let expected = [HEADER, b"\x05/yes\nrequest"].concat();
    let mut received = vec![0; expected.len()];
    theirs
        .read_exact(&mut received)
        .await
        .expect("everything is here");
    assert_eq!(received, expected);

    theirs
        .write_all(&[HEADER, b"\x05/yes\nresponse"].concat())
        .await
        .expect("room");
    theirs.shutdown().await.expect("an open pipe");
    let mut response = String::new();
    dialler.read_to_string(&mut response).await.expect("a response");
    assert_eq!(response, "response");
}

#[tokio::test]
async fn a_refused_lazy_proposal_fails_every_read() {
    for (answer, kind) in [
        (&b"\x03na\n"[..], ErrorKind::Unsupported),
        (b"\x04/no\n", ErrorKind::InvalidData),
        (b"\xff\xff\xff", ErrorKind::InvalidData),
        (b"", ErrorKind::UnexpectedEof),
    ] {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut dialler = Negotiated::new(ours);
        dialler.dial_lazily("/yes".into()).await.expect("room");
        theirs
            .write_all(&[HEADER, answer, b"data"].concat()[..HEADER.len() + answer.len()])
            .await
            .expect("room");
        theirs.shutdown().await.expect("an open pipe");
        let error = dialler.read_u8().await.expect_err("no answer");
        assert_eq!(error.kind(), kind);
        for _ in 0..3 {
            assert!(dialler.read_u8().await.is_err());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, with_header: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bytes = if with_header { [HEADER, &bytes].concat() } else { bytes };
        runtime.block_on(async {
            let _ = listen(&bytes).await;
            let _ = dial(&bytes).await;
        });
    }
}

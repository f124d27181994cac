use super::*;

#[test]
fn close_counts_what_waited_once() {
    let inbox = Inbox::new(Limits::default());
    inbox.push(Packet::from("a")).unwrap();
    inbox.push(Packet::from("b")).unwrap();
    assert_eq!((inbox.close(), inbox.close()), (2, 0));
    assert_eq!(inbox.push(Packet::from("c")).unwrap_err().reason, Reason::Closed);
    assert!(matches!(inbox.try_pop(), Err(Error::Closed)));
    assert_eq!((inbox.len(), inbox.held()), (0, 0));
}

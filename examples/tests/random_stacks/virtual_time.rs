//! A runtime in virtual time that sockets on loopback can be used in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// Looks for what arrived at sockets before the clock moves on: hops of a datagram and its answers that take no time.
const LOOKS: usize = 8;

/// Returns a runtime of one thread whose clock moves on only while no task can go on and no datagram waits.
///
/// Tokio's paused clock moves on to the next timer as soon as no task is ready, also where a datagram is there and its reader was
/// not called yet. The kernel delivers on loopback while it sends, so looking a few times finds what is there. If a datagram is
/// late nevertheless, as on a loaded machine, the medium is slow for a moment: the laws cannot tell that from a slow network.
///
/// How long something takes depends on no processor then, and nothing waits in real time.
pub(crate) fn runtime() -> Runtime {
    let idle = Arc::new(Notify::new());
    let (wake, looked) = (idle.clone(), AtomicUsize::new(0));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || {
            // With a task that is ready the runtime looks at its sockets and leaves the clock alone.
            if looked.fetch_add(1, Relaxed) < LOOKS {
                wake.notify_one();
            } else {
                looked.store(0, Relaxed);
            }
        })
        .build()
        .expect("a runtime");
    runtime.spawn(async move {
        loop {
            idle.notified().await;
        }
    });
    runtime
}

#[test]
fn a_datagram_and_its_answers_take_no_time() {
    use std::time::Duration;
    use tokio::net::UdpSocket;
    use tokio::time::{Instant, sleep, timeout};

    runtime().block_on(async {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").await,
            UdpSocket::bind("127.0.0.1:0").await,
        );
        let (a, b) = (a.expect("a socket"), b.expect("a socket"));
        a.connect(b.local_addr().expect("an address"))
            .await
            .expect("connected");
        b.connect(a.local_addr().expect("an address"))
            .await
            .expect("connected");
        let echo = tokio::spawn(async move {
            let mut buf = [0; 8];
            while let Ok(len) = b.recv(&mut buf).await {
                b.send(&buf[..len]).await.expect("sent");
            }
        });
        // A timer that each look could move the clock to.
        let ticking = tokio::spawn(async {
            loop {
                sleep(Duration::from_millis(1)).await;
            }
        });
        let began = Instant::now();
        for number in 0..100_u8 {
            a.send(&[number]).await.expect("sent");
            let mut buf = [0; 8];
            let answer = timeout(Duration::from_secs(1), a.recv(&mut buf)).await;
            assert_eq!(answer.expect("in time").expect("received"), 1);
            assert_eq!(buf[0], number);
        }
        // Every eighth look finds the clock moved on.
        assert!(
            began.elapsed() < Duration::from_millis(60),
            "{:?}",
            began.elapsed()
        );
        ticking.abort();
        sleep(Duration::from_hours(1)).await;
        echo.abort();
    });
}

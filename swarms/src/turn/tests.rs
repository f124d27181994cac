use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use p2p::Packet;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::inbox::Limits;

/// A queue per reader, one source that they all receive from, and the turn to do so.
struct Demux {
    source: Inbox<Packet>,
    inboxes: Vec<Inbox<Packet>>,
    turn: Turn<Vec<Packet>>,
}

impl Demux {
    fn new(readers: usize) -> Arc<Self> {
        Arc::new(Self {
            source: Inbox::new(Limits::default()),
            inboxes: (0..readers).map(|_| Inbox::new(Limits::default())).collect(),
            turn: Turn::new(Vec::new()),
        })
    }

    fn send(&self, to: usize) {
        assert!(self.source.push(Packet::from(&[to as u8])).is_ok());
    }

    /// The receive loop of every layer that uses the turn.
    async fn receive(self: Arc<Self>, reader: usize) -> Result<Packet> {
        let own = &self.inboxes[reader];
        let mut driving = match self.turn.drive_or_pop(own).await? {
            Wait::Item(item) => return Ok(item),
            Wait::Drive(driving) => driving,
        };
        loop {
            match first(self.source.pop_batch(&mut driving, 4), own.pop()).await {
                First::Left(pulled) => pulled?,
                First::Right(item) => return item,
            };
            let mut mine = None;
            for packet in driving.drain(..) {
                let to = usize::from(packet[0]);
                if to == reader && mine.is_none() {
                    mine = Some(packet);
                } else {
                    assert!(self.inboxes[to].push(packet).is_ok());
                }
            }
            if let Some(mine) = mine {
                return Ok(mine);
            }
        }
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Caller {
    reader: usize,
    woken: Arc<Flag>,
    call: Pin<Box<dyn Future<Output = Result<Packet>> + Send>>,
}

#[derive(Clone, Debug)]
enum Step {
    Call(usize),
    Cancel(usize),
    /// Cancels a woken caller before it runs.
    CancelWoken(usize),
    Send(usize),
    /// Runs a woken caller.
    Run(usize),
    /// Runs woken callers until none is left.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize).prop_map(Step::Call),
        (0..3usize).prop_map(Step::Call),
        any::<usize>().prop_map(Step::Cancel),
        any::<usize>().prop_map(Step::CancelWoken),
        (0..3usize).prop_map(Step::Send),
        any::<usize>().prop_map(Step::Run),
        Just(Step::Settle),
    ]
}

proptest! {
    /// After any order of calls, cancellations and wake-ups, when no caller is woken, every message that a
    /// caller waits for has arrived, and none arrived twice.
    #[test]
    fn no_wake_up_is_lost(steps in proptest::collection::vec(step(), 0..120)) {
        let demux = Demux::new(3);
        let mut callers: Vec<Caller> = Vec::new();
        let (mut sent, mut received) = ([0_u32; 3], [0_u32; 3]);
        let run = |callers: &mut Vec<Caller>, received: &mut [u32; 3], at: usize| {
            let caller = &mut callers[at];
            caller.woken.0.store(false, Ordering::SeqCst);
            let waker = caller.woken.clone().into();
            if let Poll::Ready(packet) = caller.call.as_mut().poll(&mut Context::from_waker(&waker)) {
                assert_eq!(usize::from(packet.expect("open")[0]), caller.reader);
                received[caller.reader] += 1;
                callers.swap_remove(at);
            }
        };
        let woken = |callers: &[Caller]| -> Vec<usize> {
            (0..callers.len()).filter(|at| callers[*at].woken.0.load(Ordering::SeqCst)).collect()
        };
        for step in steps.into_iter().chain([Step::Settle]) {
            match step {
                Step::Call(reader) => {
                    let call = Box::pin(demux.clone().receive(reader));
                    callers.push(Caller { reader, woken: Arc::default(), call });
                    let last = callers.len() - 1;
                    run(&mut callers, &mut received, last);
                }
                Step::Cancel(which) => {
                    if !callers.is_empty() {
                        callers.swap_remove(which % callers.len());
                    }
                }
                Step::Send(to) => {
                    demux.send(to);
                    sent[to] += 1;
                }
                Step::CancelWoken(which) => {
                    let ready = woken(&callers);
                    if let Some(at) = ready.get(which % ready.len().max(1)) {
                        callers.swap_remove(*at);
                    }
                }
                Step::Run(which) => {
                    let ready = woken(&callers);
                    if let Some(at) = ready.get(which % ready.len().max(1)) {
                        run(&mut callers, &mut received, *at);
                    }
                }
                Step::Settle => {
                    while let Some(at) = woken(&callers).first() {
                        run(&mut callers, &mut received, *at);
                    }
                    for reader in 0..3 {
                        let waits = callers.iter().any(|caller| caller.reader == reader);
                        prop_assert!(received[reader] <= sent[reader]);
                        prop_assert!(!waits || received[reader] == sent[reader], "{sent:?} {received:?}");
                    }
                }
            }
        }
    }
}

/// Threads with tasks that are cancelled all the time, and others that are not: each message arrives before
/// the next is sent, so a lost wake-up would stop the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stress_of_cancelled_and_patient_readers() {
    const READERS: usize = 6;
    const ROUNDS: usize = 4000;
    let demux = Demux::new(READERS);
    let (tell, mut told) = mpsc::unbounded_channel();
    let running = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..READERS * 2)
        .map(|task| {
            let (demux, tell, running) = (demux.clone(), tell.clone(), running.clone());
            tokio::spawn(async move {
                let reader = task % READERS;
                let patience = if task < READERS { usize::MAX } else { task % 3 };
                loop {
                    let waiting = async {
                        // Cancelling readers cancel for one round, then wait for the next.
                        let round = running.load(Ordering::SeqCst);
                        for _ in 0..patience {
                            tokio::task::yield_now().await;
                            if patience == usize::MAX {
                                std::future::pending::<()>().await;
                            }
                        }
                        round
                    };
                    match first(demux.clone().receive(reader), waiting).await {
                        First::Left(Ok(packet)) => drop(tell.send(packet)),
                        First::Left(Err(_)) => return,
                        First::Right(round) => {
                            while running.load(Ordering::SeqCst) == round && !demux.source.is_closed() {
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let all = async {
        let mut state = 1_u64;
        for _ in 0..ROUNDS {
            running.fetch_add(1, Ordering::SeqCst);
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            demux.send((state >> 33) as usize % READERS);
            assert!(told.recv().await.is_some());
        }
    };
    tokio::time::timeout(Duration::from_mins(1), all)
        .await
        .expect("a wake-up was lost");
    demux.source.close();
    for inbox in &demux.inboxes {
        inbox.close();
    }
    for task in tasks {
        task.await.expect("no reader panicked");
    }
    assert!(demux.turn.try_drive().is_some(), "the turn is free");
}

#[test]
fn one_reader_at_a_time_holds_the_turn() {
    let turn = Turn::new(Vec::<u8>::new());
    let mut driving = turn.try_drive().expect("free");
    driving.push(1);
    assert!(turn.try_drive().is_none());
    drop(driving);
    assert_eq!(*turn.try_drive().expect("free again"), [1]);
}

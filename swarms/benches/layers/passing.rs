//! A layer that receives from below and passes messages on, in two forms: polled by its callers, and in a task.

use std::collections::VecDeque;
use std::sync::Arc;

use p2p::{Addr, Message, Packet, Result, Swarm};
use p2p_swarms::driver::{Driver, Mailbox, Step, pump};
use p2p_swarms::inbox::Limits;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// Messages that are received at a time.
const BATCH: usize = 64;

/// The layer on the driver of `p2p-swarms`.
pub(crate) struct Driven<A, S>(Arc<Shared<A, S>>);

struct Shared<A, S> {
    inner: S,
    driver: Driver<()>,
    mailbox: Mailbox<Message<A>>,
}

struct Work<A, S> {
    shared: Arc<Shared<A, S>>,
    received: Vec<Message<A>>,
    passed: VecDeque<Message<A>>,
}

impl<A: Addr, S: Swarm<A>> Step for Work<A, S> {
    async fn step(&mut self) -> Result<()> {
        let Shared {
            inner,
            driver,
            mailbox,
        } = &*self.shared;
        inner.receive_batch(&mut self.received, BATCH).await?;
        self.passed.extend(self.received.drain(..));
        mailbox.deliver(driver, (), &mut self.passed);
        Ok(())
    }
}

impl<A: Addr, S: Swarm<A>> Driven<A, S> {
    pub(crate) fn new(inner: S) -> Self {
        let shared = Arc::new(Shared {
            inner,
            driver: Driver::new(),
            mailbox: Mailbox::new(Limits::default()),
        });
        let work = Work {
            shared: shared.clone(),
            received: Vec::new(),
            passed: VecDeque::new(),
        };
        let of = shared.clone();
        let work = async move { pump(&of.driver, "driven", work).await };
        shared.driver.start(work).expect("a runtime");
        Self(shared)
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for Driven<A, S> {
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        self.0.inner.tell(dst, packet).await
    }

    async fn receive(&self) -> Result<Message<A>> {
        self.0.mailbox.pop(&self.0.driver, ()).await
    }

    fn mtu(&self) -> usize {
        self.0.inner.mtu()
    }

    fn local_addrs(&self) -> Vec<A> {
        self.0.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.0.inner.parse_addr(text)
    }

    async fn close(&self) {
        self.0.driver.close();
        self.0.inner.close().await;
    }
}

impl<A, S> Drop for Driven<A, S> {
    fn drop(&mut self) {
        self.0.driver.close();
    }
}

/// The layer with a task that receives.
pub(crate) struct Tasked<A, S> {
    inner: Arc<S>,
    received: Mutex<mpsc::Receiver<Message<A>>>,
    task: JoinHandle<()>,
}

impl<A: Addr, S: Swarm<A>> Tasked<A, S> {
    pub(crate) fn new(inner: S) -> Self {
        let (inner, (sender, taken)) = (Arc::new(inner), mpsc::channel(1024));
        let below = inner.clone();
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            while below.receive_batch(&mut received, BATCH).await.is_ok() {
                for message in received.drain(..) {
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            inner,
            received: Mutex::new(taken),
            task,
        }
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for Tasked<A, S> {
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        self.inner.tell(dst, packet).await
    }

    async fn receive(&self) -> Result<Message<A>> {
        let received = self.received.lock().await.recv().await;
        received.ok_or(p2p::Error::Closed)
    }

    fn mtu(&self) -> usize {
        self.inner.mtu()
    }

    fn local_addrs(&self) -> Vec<A> {
        self.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.inner.parse_addr(text)
    }

    async fn close(&self) {
        self.task.abort();
        self.inner.close().await;
    }
}

impl<A, S> Drop for Tasked<A, S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Swarms and addresses with a type that is chosen at run time.
//!
//! Each call through a box allocates one future; a batch is one call.

use std::any::{Any, TypeId};
use std::cmp::Ordering;
use std::fmt::{self, Debug, Display};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Addr, AskSwarm, BatchError, Counters, Headroom, Message, Packet, PeerId, Request, Result, SecureSwarm,
    Swarm,
};

/// [`Swarm`] with boxed futures.
#[async_trait]
trait ErasedSwarm<A: Addr>: Send + Sync {
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()>;
    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError>;
    async fn receive(&self) -> Result<Message<A>>;
    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize>;
    fn mtu(&self) -> usize;
    fn local_addrs(&self) -> Vec<A>;
    fn parse_addr(&self, text: &str) -> Result<A>;
    async fn close(&self);
    fn headroom(&self) -> Headroom;
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters));
}

#[async_trait]
impl<A: Addr, S: Swarm<A>> ErasedSwarm<A> for S {
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        Swarm::tell(self, dst, packet).await
    }
    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        Swarm::tell_batch(self, batch).await
    }
    async fn receive(&self) -> Result<Message<A>> {
        Swarm::receive(self).await
    }
    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        Swarm::receive_batch(self, out, max).await
    }
    fn mtu(&self) -> usize {
        Swarm::mtu(self)
    }
    fn local_addrs(&self) -> Vec<A> {
        Swarm::local_addrs(self)
    }
    fn parse_addr(&self, text: &str) -> Result<A> {
        Swarm::parse_addr(self, text)
    }
    async fn close(&self) {
        Swarm::close(self).await;
    }
    fn headroom(&self) -> Headroom {
        Swarm::headroom(self)
    }
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        Swarm::visit_counters(self, visit);
    }
}

/// [`AskSwarm`] with boxed futures.
#[async_trait]
trait ErasedAskSwarm<A: Addr>: ErasedSwarm<A> {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet>;
    async fn receive_ask(&self) -> Result<Request<A>>;
}

#[async_trait]
impl<A: Addr, S: AskSwarm<A>> ErasedAskSwarm<A> for S {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        AskSwarm::ask(self, dst, request).await
    }
    async fn receive_ask(&self) -> Result<Request<A>> {
        AskSwarm::receive_ask(self).await
    }
}

/// [`SecureSwarm`] with boxed futures and keys as bytes.
#[async_trait]
trait ErasedSecureSwarm<A: Addr>: ErasedSwarm<A> {
    fn public_key(&self) -> BoxKey;
    async fn lookup_public_key(&self, addr: &A) -> Result<BoxKey>;
}

#[async_trait]
impl<A: Addr, S: SecureSwarm<A>> ErasedSecureSwarm<A> for S {
    fn public_key(&self) -> BoxKey {
        BoxKey(SecureSwarm::public_key(self).as_ref().into())
    }
    async fn lookup_public_key(&self, addr: &A) -> Result<BoxKey> {
        Ok(BoxKey(
            SecureSwarm::lookup_public_key(self, addr).await?.as_ref().into(),
        ))
    }
}

/// [`AskSwarm`] and [`SecureSwarm`] together.
trait ErasedSecureAskSwarm<A: Addr>: ErasedAskSwarm<A> + ErasedSecureSwarm<A> {}

impl<A: Addr, S: AskSwarm<A> + SecureSwarm<A>> ErasedSecureAskSwarm<A> for S {}

/// A public key of any type: its canonical bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BoxKey(Arc<[u8]>);

impl AsRef<[u8]> for BoxKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Defines a boxed swarm over one of the erased traits.
macro_rules! boxed {
    ($(#[$doc:meta])* $name:ident, $erased:ident, $($bound:ident),+) => {
        $(#[$doc])*
        pub struct $name<A>(Arc<dyn $erased<A>>);

        impl<A: Addr> $name<A> {
            /// Hides the type of `swarm`.
            pub fn new(swarm: impl $($bound<A> +)+) -> Self {
                Self(Arc::new(swarm))
            }
        }

        impl<A> Clone for $name<A> {
            /// Creates another handle to the same swarm.
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<A> Debug for $name<A> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl<A: Addr> Swarm<A> for $name<A> {
            async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
                ErasedSwarm::tell(&*self.0, dst, packet).await
            }
            async fn tell_batch(
                &self,
                batch: &mut Vec<(A, Packet)>,
            ) -> Result<(), BatchError> {
                ErasedSwarm::tell_batch(&*self.0, batch).await
            }
            async fn receive(&self) -> Result<Message<A>> {
                ErasedSwarm::receive(&*self.0).await
            }
            async fn receive_batch(
                &self,
                out: &mut Vec<Message<A>>,
                max: usize,
            ) -> Result<usize> {
                ErasedSwarm::receive_batch(&*self.0, out, max).await
            }
            fn mtu(&self) -> usize {
                ErasedSwarm::mtu(&*self.0)
            }
            fn local_addrs(&self) -> Vec<A> {
                ErasedSwarm::local_addrs(&*self.0)
            }
            fn parse_addr(&self, text: &str) -> Result<A> {
                ErasedSwarm::parse_addr(&*self.0, text)
            }
            async fn close(&self) {
                ErasedSwarm::close(&*self.0).await;
            }
            fn headroom(&self) -> Headroom {
                ErasedSwarm::headroom(&*self.0)
            }
            fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
                ErasedSwarm::visit_counters(&*self.0, visit);
            }
        }
    };
}

/// Forwards asks to the erased swarm.
macro_rules! boxed_ask {
    ($name:ident) => {
        impl<A: Addr> AskSwarm<A> for $name<A> {
            async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
                ErasedAskSwarm::ask(&*self.0, dst, request).await
            }
            async fn receive_ask(&self) -> Result<Request<A>> {
                ErasedAskSwarm::receive_ask(&*self.0).await
            }
        }

        impl<A: Addr> From<$name<A>> for BoxSwarm<A> {
            /// Creates a handle to the same swarm without its other capabilities.
            fn from(swarm: $name<A>) -> Self {
                Self(swarm.0)
            }
        }
    };
}

/// Forwards keys to the erased swarm.
macro_rules! boxed_secure {
    ($name:ident) => {
        impl<A: Addr> SecureSwarm<A> for $name<A> {
            type PublicKey = BoxKey;
            fn public_key(&self) -> BoxKey {
                ErasedSecureSwarm::public_key(&*self.0)
            }
            async fn lookup_public_key(&self, addr: &A) -> Result<BoxKey> {
                ErasedSecureSwarm::lookup_public_key(&*self.0, addr).await
            }
        }
    };
}

boxed!(
    /// A [`Swarm`] with a type that is chosen at run time.
    BoxSwarm, ErasedSwarm, Swarm
);
boxed!(
    /// An [`AskSwarm`] with a type that is chosen at run time.
    BoxAskSwarm, ErasedAskSwarm, AskSwarm
);
boxed!(
    /// A [`SecureSwarm`] with a type that is chosen at run time.
    BoxSecureSwarm, ErasedSecureSwarm, SecureSwarm
);
boxed!(
    /// An [`AskSwarm`] and [`SecureSwarm`] with a type that is chosen at run time.
    BoxSecureAskSwarm, ErasedSecureAskSwarm, AskSwarm, SecureSwarm
);
boxed_ask!(BoxAskSwarm);
boxed_ask!(BoxSecureAskSwarm);
boxed_secure!(BoxSecureSwarm);
boxed_secure!(BoxSecureAskSwarm);

impl<A: Addr> From<BoxSecureSwarm<A>> for BoxSwarm<A> {
    /// Creates a handle to the same swarm without its other capabilities.
    fn from(swarm: BoxSecureSwarm<A>) -> Self {
        Self(swarm.0)
    }
}

/// [`Addr`] without its type.
trait ErasedAddr: Debug + Display + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn equal(&self, other: &dyn ErasedAddr) -> bool;
    fn compare(&self, other: &dyn ErasedAddr) -> Ordering;
    fn hash_into(&self, state: &mut dyn Hasher);
    fn peer_id(&self) -> Option<PeerId>;
    fn socket_addr(&self) -> Option<SocketAddr>;
}

impl<A: Addr> ErasedAddr for A {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equal(&self, other: &dyn ErasedAddr) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn compare(&self, other: &dyn ErasedAddr) -> Ordering {
        match other.as_any().downcast_ref::<A>() {
            Some(other) => self.cmp(other),
            None => TypeId::of::<A>().cmp(&other.as_any().type_id()),
        }
    }
    fn hash_into(&self, mut state: &mut dyn Hasher) {
        self.hash(&mut state);
    }
    fn peer_id(&self) -> Option<PeerId> {
        Addr::peer_id(self)
    }
    fn socket_addr(&self) -> Option<SocketAddr> {
        Addr::socket_addr(self)
    }
}

/// An address with a type that is chosen at run time. Addresses of different types are never equal.
#[derive(Clone)]
pub struct BoxAddr(Arc<dyn ErasedAddr>);

impl BoxAddr {
    /// Hides the type of `addr`.
    pub fn new(addr: impl Addr) -> Self {
        Self(Arc::new(addr))
    }

    /// Returns the inner address if its type is `A`.
    pub fn downcast_ref<A: Addr>(&self) -> Option<&A> {
        self.0.as_any().downcast_ref()
    }
}

impl PartialEq for BoxAddr {
    fn eq(&self, other: &Self) -> bool {
        self.0.equal(&*other.0)
    }
}

impl Eq for BoxAddr {}

impl PartialOrd for BoxAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BoxAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&*other.0)
    }
}

impl Hash for BoxAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash_into(state);
    }
}

impl Debug for BoxAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&*self.0, f)
    }
}

impl Display for BoxAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&*self.0, f)
    }
}

impl Addr for BoxAddr {
    fn peer_id(&self) -> Option<PeerId> {
        self.0.peer_id()
    }
    fn socket_addr(&self) -> Option<SocketAddr> {
        self.0.socket_addr()
    }
}

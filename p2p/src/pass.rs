//! `pass_through!` forwards the methods that a layer does not change to the swarm below.

/// Implements methods of [`Swarm`](crate::Swarm), [`AskSwarm`](crate::AskSwarm) and
/// [`SecureSwarm`](crate::SecureSwarm) by calling the same method of a field.
///
/// Use `pass_through!(inner: local_addrs, parse_addr, close);` inside an `impl … Swarm<A> for …` block. The
/// address type must be named `A`; `inner` is the name of the field. `visit_counters` visits the counters of
/// the field only; a layer with counters implements it by hand. `PublicKey` is the associated type of
/// `SecureSwarm`; it comes from a type parameter `S`.
///
/// ```
/// use p2p::{Addr, Swarm, pass_through};
///
/// struct Named<S> {
///     inner: S,
/// }
///
/// impl<A: Addr, S: Swarm<A>> Swarm<A> for Named<S> {
///     pass_through!(inner: tell, tell_batch, receive, receive_batch, local_addrs, parse_addr, close,
///         headroom, visit_counters);
///     fn mtu(&self) -> usize {
///         self.inner.mtu().min(100)
///     }
/// }
/// ```
#[macro_export]
macro_rules! pass_through {
    (*: $($method:ident),+ $(,)?) => { $($crate::pass_through!(@ $method [deref]);)+ };
    ($field:tt: $($method:ident),+ $(,)?) => { $($crate::pass_through!(@ $method [field $field]);)+ };

    (@inner $self:ident [field $field:tt]) => { $self.$field };
    (@inner $self:ident [deref]) => { (**$self) };

    (@ tell $at:tt) => {
        fn tell(&self, dst: &A, packet: $crate::Packet) -> impl Future<Output = $crate::Result<()>> + Send {
            $crate::pass_through!(@inner self $at).tell(dst, packet)
        }
    };
    (@ tell_batch $at:tt) => {
        fn tell_batch(
            &self,
            batch: &mut Vec<(A, $crate::Packet)>,
        ) -> impl Future<Output = $crate::Result<(), $crate::BatchError>> + Send {
            $crate::pass_through!(@inner self $at).tell_batch(batch)
        }
    };
    (@ receive $at:tt) => {
        fn receive(&self) -> impl Future<Output = $crate::Result<$crate::Message<A>>> + Send {
            $crate::pass_through!(@inner self $at).receive()
        }
    };
    (@ receive_batch $at:tt) => {
        fn receive_batch(
            &self,
            out: &mut Vec<$crate::Message<A>>,
            max: usize,
        ) -> impl Future<Output = $crate::Result<usize>> + Send {
            $crate::pass_through!(@inner self $at).receive_batch(out, max)
        }
    };
    (@ mtu $at:tt) => {
        fn mtu(&self) -> usize {
            $crate::pass_through!(@inner self $at).mtu()
        }
    };
    (@ local_addrs $at:tt) => {
        fn local_addrs(&self) -> Vec<A> {
            $crate::pass_through!(@inner self $at).local_addrs()
        }
    };
    (@ parse_addr $at:tt) => {
        fn parse_addr(&self, text: &str) -> $crate::Result<A> {
            $crate::pass_through!(@inner self $at).parse_addr(text)
        }
    };
    (@ close $at:tt) => {
        fn close(&self) -> impl Future<Output = ()> + Send {
            $crate::pass_through!(@inner self $at).close()
        }
    };
    (@ headroom $at:tt) => {
        fn headroom(&self) -> $crate::Headroom {
            $crate::pass_through!(@inner self $at).headroom()
        }
    };
    (@ visit_counters $at:tt) => {
        fn visit_counters(&self, visit: &mut dyn FnMut(&$crate::Counters)) {
            $crate::pass_through!(@inner self $at).visit_counters(visit);
        }
    };
    (@ ask $at:tt) => {
        fn ask(
            &self,
            dst: &A,
            request: $crate::Packet,
        ) -> impl Future<Output = $crate::Result<$crate::Packet>> + Send {
            $crate::pass_through!(@inner self $at).ask(dst, request)
        }
    };
    (@ receive_ask $at:tt) => {
        fn receive_ask(&self) -> impl Future<Output = $crate::Result<$crate::Request<A>>> + Send {
            $crate::pass_through!(@inner self $at).receive_ask()
        }
    };
    (@ PublicKey $at:tt) => {
        type PublicKey = S::PublicKey;
    };
    (@ public_key $at:tt) => {
        fn public_key(&self) -> Self::PublicKey {
            $crate::pass_through!(@inner self $at).public_key()
        }
    };
    (@ lookup_public_key $at:tt) => {
        fn lookup_public_key(
            &self,
            addr: &A,
        ) -> impl Future<Output = $crate::Result<Self::PublicKey>> + Send {
            $crate::pass_through!(@inner self $at).lookup_public_key(addr)
        }
    };
}

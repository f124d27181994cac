//! `conformance!`: one test for each law.

use std::pin::Pin;

/// Makes a module with one test for each law that applies, named `<module>::<group>::<law>`.
///
/// Written are the attribute that makes an async function a test, the module's name, the kind of swarm
/// ([`Plain`](crate::Plain), [`Ask`](crate::Ask), [`Secure`](crate::Secure) or
/// [`SecureAsk`](crate::SecureAsk)) and an expression for the [`Testbed`](crate::Testbed), which each test
/// evaluates for itself. A waived law passes and prints why it is waived.
///
/// ```
/// use p2p_swarmtest::reference::Network;
/// use p2p_swarmtest::{Ask, Testbed, conformance};
///
/// fn bed() -> Testbed<p2p_swarmtest::reference::Address> {
///     let network = Network::default();
///     Testbed::new(Ask, move |count| std::future::ready(Ok(network.nodes(count))))
/// }
///
/// conformance!(#[tokio::test(start_paused = true)] mod reference: Ask => bed());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($(#[$attribute:meta])+ mod $name:ident : $kind:ident => $bed:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "whatever the expression needs")]
            use super::*;
            $crate::for_each_law! { $crate::conformance_groups!($kind [$(#[$attribute])+] $bed) }
        }
    };
}

/// A module for each group.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_groups {
    (($kind:ident $attributes:tt $bed:expr)
     $($group:ident { $($needs:ident $law:ident $sentence:literal;)+ })+) => {$(
        mod $group {
            #[allow(unused_imports, reason = "whatever the expression needs, if the group has laws")]
            use super::*;
            $($crate::conformance_law!($kind $needs $attributes $group $law $bed);)+
        }
    )+};
}

/// A test, if the law applies to the kind.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_law {
    (Plain Ask $($rest:tt)*) => {};
    (Plain Secure $($rest:tt)*) => {};
    (Ask Secure $($rest:tt)*) => {};
    (Secure Ask $($rest:tt)*) => {};
    (Plain SecureAsk $($rest:tt)*) => {};
    (Ask SecureAsk $($rest:tt)*) => {};
    (Secure SecureAsk $($rest:tt)*) => {};
    ($kind:ident $needs:ident [$(#[$attribute:meta])+] $group:ident $law:ident $bed:expr) => {
        $(#[$attribute])+
        async fn $law() {
            $crate::assert_law($bed, concat!(stringify!($group), "::", stringify!($law))).await;
        }
    };
}

/// Checks one law for a test. Boxed, so that little is compiled for each of the many tests.
///
/// # Panics
/// If the swarm breaks the law, in the future that this returns.
#[doc(hidden)]
pub fn assert_law<A: p2p::Addr>(
    bed: crate::Testbed<A>,
    name: &'static str,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(assert_erased(bed.erase(), name))
}

async fn assert_erased(bed: crate::Testbed<p2p::BoxAddr>, name: &str) {
    let Some(law) = crate::Law::named(name) else {
        panic!("there is no law {name:?}");
    };
    let checked = bed.check_one(law).await;
    match checked.verdict {
        crate::Verdict::Passed => {}
        crate::Verdict::Waived(_) => println!("{checked}"),
        crate::Verdict::Failed(_) => panic!("{}: {checked}", law.sentence),
    }
}

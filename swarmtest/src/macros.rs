//! `conformance!`: one test for each law.

use std::cell::Cell;
use std::pin::Pin;

/// Makes a module with one test for each law that applies, named `<module>::<group>::<law>`.
///
/// Written are the attribute that makes an async function a test, the module's name, the kind of swarm
/// ([`Plain`](crate::Plain), [`Ask`](crate::Ask), [`Secure`](crate::Secure) or
/// [`SecureAsk`](crate::SecureAsk)) and an expression for the [`Testbed`](crate::Testbed), which each test
/// evaluates for itself. A waived law passes and prints why it is waived. One more test, `<module>::makes_nodes`, looks at
/// the testbed alone, and checks the [laws of the caller's](crate::Testbed::law).
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

            // The one function with the attribute: a runtime in each of the many tests takes long to compile.
            $(#[$attribute])+
            async fn makes_nodes() {
                $crate::checked(&$bed).await;
            }

            $crate::for_each_law! { $crate::conformance_groups!($kind) }
        }
    };
}

/// A module for each group.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_groups {
    (($kind:ident) $($group:ident { $($needs:ident $law:ident $sentence:literal;)+ })+) => {$(
        mod $group {
            $($crate::conformance_law!($kind $needs $group $law);)+
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
    ($kind:ident $needs:ident $group:ident $law:ident) => {
        #[test]
        fn $law() {
            $crate::check_law(
                concat!(stringify!($group), "::", stringify!($law)),
                super::makes_nodes,
            );
        }
    };
}

thread_local! {
    /// The law that the test of this thread is about.
    static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Lets `run`, which calls [`checked`], check this law.
///
/// # Panics
/// If the swarm breaks the law, and if `run` does not come to call [`checked`] in this thread.
#[doc(hidden)]
pub fn check_law(name: &'static str, run: fn()) {
    CHOSEN.set(Some(name));
    run();
    assert!(
        CHOSEN.take().is_none(),
        "{name} was not checked: the attribute runs the function in another thread, or not at all"
    );
}

/// Checks the law that [`check_law`] chose; without one, that the testbed makes nodes.
///
/// # Panics
/// The future does, if the swarm breaks the law or no nodes are made.
#[doc(hidden)]
pub fn checked<A: p2p::Addr>(bed: &crate::Testbed<A>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(check_erased(bed.erase(), CHOSEN.take()))
}

async fn check_erased(bed: crate::Testbed<p2p::BoxAddr>, chosen: Option<&'static str>) {
    let Some(name) = chosen else {
        let made = bed.nodes::<2>().await;
        assert!(made.is_ok(), "{made:?}");
        for law in bed.own_laws() {
            show(&bed.check_one(law).await);
        }
        return;
    };
    let Some(law) = crate::Law::named(name) else {
        panic!("there is no law {name:?}");
    };
    show(&bed.check_one(*law).await);
}

/// # Panics
/// If the law is broken.
fn show(checked: &crate::Checked) {
    match checked.verdict {
        crate::Verdict::Passed => {}
        crate::Verdict::Waived(_) => println!("{checked}"),
        crate::Verdict::Failed(_) => panic!("{}: {checked}", checked.law.sentence),
    }
}

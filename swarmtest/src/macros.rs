//! `conformance!`: one test for each law.

use std::cell::Cell;
use std::pin::Pin;

/// Creates a module with one test for each law that applies, named `<module>::<group>::<law>`.
///
/// The arguments are the attribute that makes an async function a test, the module's name, the kind of swarm
/// ([`Plain`](crate::Plain), [`Ask`](crate::Ask), [`Secure`](crate::Secure) or
/// [`SecureAsk`](crate::SecureAsk)), and an expression for the [`Testbed`](crate::Testbed), which each test
/// evaluates. A waived law passes and prints the reason. One more test, `<module>::makes_nodes`, checks only
/// that the testbed creates nodes, and the [laws of the caller](crate::Testbed::law).
///
/// ```
/// use p2p_swarmtest::reference::Network;
/// use p2p_swarmtest::{Ask, Testbed, conformance};
///
/// fn testbed() -> Testbed<p2p_swarmtest::reference::Address> {
///     let network = Network::default();
///     Testbed::new(Ask, move |count| std::future::ready(Ok(network.nodes(count))))
/// }
///
/// conformance!(#[tokio::test(start_paused = true)] mod reference: Ask => testbed());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($(#[$attribute:meta])+ mod $name:ident : $kind:ident => $testbed:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need it")]
            use super::*;

            // The only function with the attribute: a runtime in each of the many tests takes long to
            // compile.
            $(#[$attribute])+
            async fn makes_nodes() {
                $crate::checked(&$testbed).await;
            }

            $crate::for_each_law! { $crate::conformance_groups!($kind) }
        }
    };
}

/// Creates a module for each group.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_groups {
    (($kind:ident) $($group:ident { $($needs:ident $law:ident $sentence:literal;)+ })+) => {$(
        mod $group {
            $($crate::conformance_law!($kind $needs $group $law);)+
        }
    )+};
}

/// Creates a test, if the law applies to the kind.
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
    /// The law of the test in this thread.
    static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Makes `run`, which calls [`checked`], check this law.
///
/// # Panics
/// Panics if the swarm breaks the law, and if `run` does not call [`checked`] in this thread.
#[doc(hidden)]
pub fn check_law(name: &'static str, run: fn()) {
    CHOSEN.set(Some(name));
    run();
    assert!(
        CHOSEN.take().is_none(),
        "{name} was not checked: the attribute runs the function in another thread, or not at all"
    );
}

/// Checks the law that [`check_law`] chose; without one, checks that the testbed creates nodes.
///
/// # Panics
/// The future panics if the swarm breaks the law or no nodes are created.
#[doc(hidden)]
pub fn checked<A: p2p::Addr>(testbed: &crate::Testbed<A>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(check_erased(testbed.erase(), CHOSEN.take()))
}

async fn check_erased(testbed: crate::Testbed<p2p::BoxAddr>, chosen: Option<&'static str>) {
    let Some(name) = chosen else {
        let made = testbed.nodes::<2>().await;
        assert!(made.is_ok(), "{made:?}");
        for law in testbed.own_laws() {
            show(&testbed.check_one(law).await);
        }
        return;
    };
    let Some(law) = crate::Law::named(name) else {
        panic!("there is no law {name:?}");
    };
    show(&testbed.check_one(*law).await);
}

/// Prints a verdict.
///
/// # Panics
/// Panics if the law is broken.
fn show(checked: &crate::Checked) {
    match checked.verdict {
        crate::Verdict::Passed => {}
        crate::Verdict::Waived(_) => println!("{checked}"),
        crate::Verdict::Failed(_) => panic!("{}: {checked}", checked.law.sentence),
    }
}

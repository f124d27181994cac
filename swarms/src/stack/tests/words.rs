//! Bases that a program adds to the grammar.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use p2p::{BoxAddr, BoxSwarm, Result};

use super::*;
use crate::MemoryRealm;
use crate::map::EraseSwarm;

/// `road[=/lane/N][,sign=A/B]`: nodes of a memory realm, whose addresses `/lane/N` contain slashes.
#[derive(Debug)]
struct RoadWord;

#[derive(Debug)]
struct Road {
    lane: Option<u64>,
    sign: Option<String>,
}

/// Returns the length of `/lane/` and the digits behind it.
fn lane_len(text: &str) -> usize {
    let digits = text.strip_prefix("/lane/").unwrap_or_default();
    match digits.bytes().take_while(u8::is_ascii_digit).count() {
        0 => 0,
        digits => "/lane/".len() + digits,
    }
}

impl BaseWord for RoadWord {
    fn word(&self) -> &'static str {
        "road"
    }

    fn parse(&self, arguments: &mut Arguments<'_, '_>) -> Result<Arc<dyn Base>, StackError> {
        let lane = arguments.argument("a lane, such as /lane/7")?;
        let read = |value: Value<'_>| {
            let number = value.text().strip_prefix("/lane/").map(str::parse);
            match number {
                Some(Ok(number)) => Ok(number),
                Some(Err(_)) => Err(value.error("/lane/".len(), "expected a number")),
                None => Err(value.error(0, "expected /lane/NUMBER")),
            }
        };
        let lane = lane.map(read).transpose()?;
        let sign = arguments.option("sign").map(|sign| sign.text().to_owned());
        Ok(Arc::new(Road { lane, sign }))
    }

    fn addr_len(&self, text: &str) -> usize {
        lane_len(text)
    }

    fn option_len(&self, option: &str, text: &str) -> usize {
        // Too long, which must not matter.
        if option == "sign" { 2 * text.len() } else { 0 }
    }
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lane) = self.lane {
            write!(f, "=/lane/{lane}")?;
        }
        match &self.sign {
            Some(sign) => write!(f, ",sign={sign}"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Base for Road {
    fn word(&self) -> &'static str {
        "road"
    }

    fn properties(&self) -> BaseProperties {
        BaseProperties {
            holds: 1024,
            ..BaseProperties::default()
        }
    }

    async fn open(&self, _: Option<&BoxAddr>, _: &PrivateKey) -> Result<Stack> {
        let node = MemoryRealm::named("the-road").open();
        Ok(Stack::Plain(BoxSwarm::new(EraseSwarm::erase(node))))
    }
}

fn grammar() -> Grammar {
    Grammar::default().with_base(RoadWord).expect("a free word")
}

#[track_caller]
fn refused_with(text: &str, at: usize) -> String {
    let error = grammar().parse(text).expect_err(text);
    assert_eq!(error.at(), at, "{error}");
    error.reason().to_owned()
}

fn words(text: &str) -> Vec<String> {
    let text = grammar().parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(grammar().parse(&text.to_string()).expect("its text parses"), text);
    text.layers().map(ToString::to_string).collect()
}

#[test]
fn slashes_of_addresses_separate_no_layers() {
    assert_eq!(words("road/mux=a"), ["road", "mux=a"]);
    assert_eq!(words("road=/lane/7"), ["road=/lane/7"]);
    assert_eq!(
        words("road=/lane/7/mux=a/frag"),
        ["road=/lane/7", "mux=a", "frag"]
    );
    assert_eq!(
        words("road/mbapp/kad=/lane/7;/lane/8/mux=a"),
        ["road", "mbapp", "kad=/lane/7;/lane/8", "mux=a"]
    );
    assert_eq!(
        words("road/gossip=t,peers=/lane/7;/lane/8"),
        ["road", "gossip=t,peers=/lane/7;/lane/8"]
    );
    assert_eq!(words("road,sign=/b/mux=a"), ["road,sign=/b/mux=a"]);
    // The texts of other bases are read as before.
    assert_eq!(
        refused("mem/allow=/lane/7", 10),
        "expected ids or addresses joined by ;"
    );
}

#[test]
fn errors_name_the_words_and_the_positions_of_added_bases() {
    assert!(refused_with("rode/frag", 0).contains("mem, udp, road"));
    assert!(refused_with("mem/road", 4).contains("a base, which must come first"));
    assert!(refused_with("road=/lane/7/frog", 13).contains("there is no layer \"frog\""));
    assert!(refused_with("road=/street/7", 5).contains("expected a lane"));
    assert!(refused_with("road=/lane/99999999999999999999/frag", 11).contains("a number"));
    assert!(refused_with("road=street", 5).contains("/lane/NUMBER"));
    assert!(refused_with("road,speed=9", 5).contains("it has: sign"));
    assert!(refused_with("road/kad", 5).contains("road does not support them"));
    assert!(
        "road".parse::<StackText>().is_err(),
        "the base is not in the default grammar"
    );
}

#[test]
fn a_word_that_is_taken_or_cannot_be_written_is_refused() {
    assert!(grammar().with_base(RoadWord).is_err());
    for word in ["mem", "frag", "", "a/b", "A", "a=b"] {
        #[derive(Debug)]
        struct Named(&'static str);
        impl BaseWord for Named {
            fn word(&self) -> &'static str {
                self.0
            }
            fn parse(&self, arguments: &mut Arguments<'_, '_>) -> Result<Arc<dyn Base>, StackError> {
                RoadWord.parse(arguments)
            }
        }
        assert!(Grammar::default().with_base(Named(word)).is_err(), "{word:?}");
    }
}

#[tokio::test]
async fn nodes_of_an_added_base_carry_layers() {
    let text = grammar().parse("road/mux=a").expect("a stack");
    let (a, b) = (built_of(&text).await, built_of(&text).await);
    a.tell(&b.local_addrs()[0], "hello".into()).await.expect("told");
    assert_eq!(b.receive().await.expect("received").payload, b"hello");
    let medium = text.medium().await.expect("a medium");
    assert!(medium.holds > 1024 && !medium.handshakes, "{medium:?}");
}

proptest! {
    #[test]
    fn any_text_with_an_added_base_is_a_stack_or_an_error_within_it(
        text in "road(=?(/lane/[0-9]{0,3};?){0,2}(,(sign|x)=[/a-zü=,;]{0,6}){0,2})(/(frag|mux=[/a-z]{0,9}|kad=(/lane/1;?){0,2}|ü)){0,3}"
    ) {
        match grammar().parse(&text) {
            Ok(stack) => {
                let again = grammar().parse(&stack.to_string());
                prop_assert_eq!(again.map_err(|error| TestCaseError::fail(error.to_string()))?, stack);
            }
            Err(error) => prop_assert!(text.is_char_boundary(error.at()), "{}", error),
        }
    }
}

//! How often to repeat on a medium that loses, and how much arrives at least.

/// Chance that a check fails a correct swarm on a lossy medium, at most.
const DOUBT: f64 = 1e-12;

/// Most attempts that a loss can ask for, so that a mistaken loss of 1 ends.
const MOST_ATTEMPTS: usize = 20_000;

/// How often to repeat what fails with a chance of `loss`, so that it fails always with a chance below
/// 10⁻¹². Without loss: once more, because the first may have come too late.
#[expect(clippy::cast_sign_loss, reason = "a quotient of two negative logarithms")]
pub(crate) fn attempts(loss: f64) -> usize {
    if loss <= 0.0 {
        return 2;
    }
    if loss >= 1.0 {
        return MOST_ATTEMPTS;
    }
    ((DOUBT.ln() / loss.ln()).ceil() as usize).clamp(2, MOST_ATTEMPTS)
}

/// How many of `count` independent messages arrive at least, if each is lost with a chance of `loss`; fewer
/// do with a chance below 10⁻¹².
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]
pub(crate) fn arrive_at_least(count: usize, loss: f64) -> usize {
    if loss <= 0.0 {
        return count;
    }
    if loss >= 1.0 {
        return 0;
    }
    // The binomial distribution from below, each probability made of the one before; as logarithms, since the first of
    // thousands is too small for a number.
    let odds = ((1.0 - loss) / loss).ln();
    let mut probability = loss.ln() * count as f64;
    let mut below = 0.0;
    for arrived in 0..count {
        below += probability.exp();
        if below > DOUBT {
            return arrived;
        }
        probability += odds + ((count - arrived) as f64 / (arrived + 1) as f64).ln();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_grows_with_the_loss_and_ends() {
        assert_eq!(attempts(0.0), 2);
        assert_eq!(attempts(0.1), 12);
        assert_eq!(attempts(0.3), 23);
        assert!(0.995_f64.powi(i32::try_from(attempts(0.995)).expect("some thousands")) <= DOUBT);
        assert_eq!(attempts(1.0), MOST_ATTEMPTS);
    }

    #[test]
    fn the_bound_on_arrivals_is_the_binomial_tail() {
        assert_eq!(arrive_at_least(128, 0.0), 128);
        assert_eq!(arrive_at_least(10, 1.0), 0);
        // 0.3²³ is the first power below 10⁻¹².
        assert_eq!(arrive_at_least(22, 0.3), 0);
        assert_eq!(arrive_at_least(23, 0.3), 1);
        let bound = arrive_at_least(200, 0.3);
        assert!((80..140).contains(&bound), "{bound} of an expected 140");
        let bound = arrive_at_least(5000, 0.2);
        assert!((3750..3900).contains(&bound), "{bound} of an expected 4000");
    }
}

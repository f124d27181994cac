//! Numbers of repetitions on a lossy medium, and lower bounds on arrivals.

/// Maximum probability that a check fails a correct swarm on a lossy medium.
const DOUBT: f64 = 1e-12;

/// Maximum number of attempts, so that a wrong loss of 1 ends.
const MOST_ATTEMPTS: usize = 20_000;

/// Returns how often to repeat an operation that fails with a probability of `loss`, so that all attempts
/// fail with a probability below 10⁻¹². Without loss: twice, because the first attempt may have come too
/// late.
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

/// Returns the minimum number of `count` independent messages that arrive, if each is lost with a probability
/// of `loss`; fewer arrive with a probability below 10⁻¹².
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]
pub(crate) fn arrive_at_least(count: usize, loss: f64) -> usize {
    if loss <= 0.0 {
        return count;
    }
    if loss >= 1.0 {
        return 0;
    }
    // Sums the binomial distribution from below, each probability computed from the previous one; as
    // logarithms, since the first of thousands is too small for a float.
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

//! The delays of a stream: the seed decides when each of its operations may begin.
//!
//! Some streams are prompt and some are slow. In each stream some operations begin at once, some
//! late, some after the one before, and some only when somebody waits for them. All delays are
//! bounded, so that nothing hangs.

use crate::random::Random;
use std::time::{Duration, Instant};

/// The longest time that an operation is held back until somebody waits for it.
const MOST_UNWANTED: Duration = Duration::from_millis(4);
/// The longest delay of the operations of a stream with slowness 1.
const LATE: Duration = Duration::from_micros(250);

/// The draws of one stream.
#[derive(Debug)]
pub(crate) struct StreamDelays {
    random: Random,
    late: Duration,
}

/// When an operation may begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delay {
    None,
    /// This long after its submission.
    SinceSubmitted(Duration),
    /// This long after the completion of the one before.
    SinceFirst(Duration),
    /// When somebody waits for it, or this long after its submission.
    UntilWanted(Duration),
}

impl StreamDelays {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random::new(seed, stream);
        let slowness = [0, 1, 2, 8][random.below(4) as usize];
        StreamDelays { random, late: LATE * slowness }
    }

    /// For work that moves bytes.
    pub(crate) fn of_work(&mut self) -> Delay {
        match self.random.below(100) {
            0..40 => Delay::None,
            40..75 => Delay::SinceSubmitted(self.random.up_to(self.late)),
            75..90 => Delay::SinceFirst(self.random.up_to(self.late / 4)),
            _ => Delay::UntilWanted(self.random.up_to(MOST_UNWANTED)),
        }
    }

    /// For an event: a little after the work before it.
    pub(crate) fn of_event(&mut self) -> Delay {
        Delay::SinceFirst(self.random.up_to(self.late.min(LATE)))
    }

    /// The draws of one operation.
    pub(crate) fn of_run(&mut self) -> Random {
        Random::new(self.random.below(u64::MAX), 0)
    }

    /// The time that a submission takes to return, usually zero.
    pub(crate) fn of_return(&mut self) -> Option<Duration> {
        self.random.chance(15).then(|| self.random.up_to(LATE * 4))
    }
}

impl Delay {
    /// The rest of the delay.
    pub(crate) fn left(self, submitted: Instant, first: Instant, wanted: bool) -> Duration {
        let since = |start: Instant, delay: Duration| delay.saturating_sub(start.elapsed());
        match self {
            Delay::None => Duration::ZERO,
            Delay::SinceSubmitted(delay) => since(submitted, delay),
            Delay::SinceFirst(delay) => since(first, delay),
            Delay::UntilWanted(_) if wanted => Duration::ZERO,
            Delay::UntilWanted(delay) => since(submitted, delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, stream: u64) -> String {
        let mut delays = StreamDelays::new(seed, stream);
        let draws: Vec<_> = (0..20).map(|_| (delays.of_work(), delays.of_event())).collect();
        format!("{draws:?}")
    }

    #[test]
    fn delays_follow_from_the_seed_and_the_stream() {
        assert_eq!(draws(3, 1), draws(3, 1));
        assert_ne!(draws(3, 1), draws(4, 1));
        assert_ne!(draws(3, 1), draws(3, 2));
    }

    #[test]
    fn delays_are_of_every_kind_and_bounded() {
        let mut kinds = [0; 4];
        for stream in 0..100 {
            let mut delays = StreamDelays::new(7, stream);
            for _ in 0..20 {
                let (kind, delay) = match delays.of_work() {
                    Delay::None => (0, Duration::ZERO),
                    Delay::SinceSubmitted(delay) => (1, delay),
                    Delay::SinceFirst(delay) => (2, delay),
                    Delay::UntilWanted(delay) => (3, delay),
                };
                kinds[kind] += 1;
                assert!(delay <= MOST_UNWANTED, "{delay:?}");
            }
        }
        assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
    }
}

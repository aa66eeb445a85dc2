//! The limit on the connections to a server that refuses requests or connections altogether.
//!
//! A server that refuses requests may have room for fewer connections, and fewer requests a second do
//! not help then, as idle connections take its room, too. So when it has accepted nothing between two
//! refusals, at least [`PERIOD`] apart, the limit is halved, and idle connections beyond it are
//! closed. Where it closes a connection without an answer, the limit becomes the number of the other
//! requests. The limit is doubled when it was kept for some time and the server has served a request
//! under it. That time is [`KEPT_MIN`] at first, and twice as long whenever the server has refused again
//! what was added. The limit of a server that serves nothing therefore stays at one connection, where
//! refusals use up the attempts of a request.

use std::time::Duration;
use tokio::time::Instant;

/// Refusals within this time count as one.
const PERIOD: Duration = Duration::from_millis(250);
/// For how long a lowered limit is kept.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = Duration::from_secs(60);

/// What the refusals of a server permit.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The highest number of connections; `None` while the server has room for more than are used.
    most: Option<usize>,
    changed: Instant,
    kept: Duration,
    has_grown: bool,
    /// Whether the server has served a request since the limit was changed.
    has_served: bool,
    /// When a request was last refused, and how many had been accepted by then.
    refused: Option<(Instant, u64)>,
}

impl Refusals {
    /// Those of a server that has refused nothing.
    pub fn new(now: Instant) -> Self {
        let (kept, has_grown, has_served) = (KEPT_MIN, false, false);
        Self { most: None, changed: now, kept, has_grown, has_served, refused: None }
    }

    /// The highest number of connections, if the server has room for fewer than are wanted.
    pub fn most(&self) -> Option<usize> {
        self.most
    }

    /// Records that the server has served a request.
    pub fn served(&mut self) {
        self.has_served = true;
    }

    /// Records that a request was refused under this `limit`, when so many had been `accepted`.
    pub fn refused(&mut self, accepted: u64, limit: usize, now: Instant) {
        match self.refused {
            Some((at, _)) if now.duration_since(at) < PERIOD => return,
            Some((_, before)) if before == accepted => self.lower(limit / 2, now),
            _ => {}
        }
        self.refused = Some((now, accepted));
    }

    /// Lowers the limit to `most`, or to one.
    pub fn lower(&mut self, most: usize, now: Instant) {
        if std::mem::take(&mut self.has_grown) {
            self.kept = (self.kept * 2).min(KEPT_MAX);
        }
        let most = most.max(1);
        tracing::debug!(connections = most, "the server refuses more connections");
        (self.most, self.changed, self.has_served) = (Some(most), now, false);
    }

    /// Raises the limit if it is time, to at most the number that is `wanted`. Returns how much higher
    /// it is.
    pub fn grow(&mut self, wanted: usize, now: Instant) -> usize {
        let may_grow = self.has_served && now.duration_since(self.changed) >= self.kept;
        let Some(most) = self.most.filter(|_| may_grow) else {
            return 0;
        };
        let grown = (most * 2).min(wanted.max(most));
        self.most = Some(grown).filter(|&grown| grown < wanted);
        (self.changed, self.has_grown, self.has_served) = (now, true, false);
        grown - most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_accepts_nothing_gets_fewer_connections() {
        let mut now = Instant::now();
        let mut refusals = Refusals::new(now);
        for expected in [None, Some(4), Some(2), Some(1), Some(1)] {
            (0..3).for_each(|_| refusals.refused(7, refusals.most().unwrap_or(8), now));
            assert_eq!(refusals.most(), expected);
            now += PERIOD;
        }
    }

    /// A store that limits the rate of requests has room for all connections.
    #[test]
    fn a_server_that_accepts_others_keeps_its_connections() {
        let mut now = Instant::now();
        let mut refusals = Refusals::new(now);
        for accepted in 0..100 {
            refusals.refused(accepted, 8, now);
            now += SECOND;
        }
        assert_eq!(refusals.most(), None);
    }

    #[test]
    fn a_lowered_limit_is_raised_again_and_more_slowly_after_each_relapse() {
        let mut now = Instant::now();
        let mut refusals = Refusals::new(now);
        refusals.lower(1, now);
        refusals.served();
        assert_eq!(refusals.grow(8, now + SECOND / 2), 0);
        for kept in [1, 2, 4, 8] {
            now += kept * SECOND;
            assert_eq!(refusals.grow(8, now - SECOND / 2), 0);
            assert_eq!((refusals.grow(8, now), refusals.most()), (1, Some(2)));
            refusals.lower(1, now);
            refusals.served();
        }
        for (grown, most) in [(1, Some(2)), (2, Some(4)), (3, None), (0, None)] {
            now += 16 * SECOND;
            assert_eq!((refusals.grow(7, now), refusals.most()), (grown, most));
            refusals.served();
        }
    }

    /// A server that had begun to refuse everything got a second connection again and again, whose
    /// refusals say nothing about a single one.
    #[test]
    fn a_limit_under_which_nothing_is_served_stays() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        refusals.served();
        refusals.lower(1, now);
        assert_eq!(refusals.grow(8, now + KEPT_MAX), 0);
        refusals.served();
        assert_eq!(refusals.grow(8, now + KEPT_MAX), 1);
        assert_eq!(refusals.grow(8, now + 2 * KEPT_MAX), 0, "not under two connections");
    }
}

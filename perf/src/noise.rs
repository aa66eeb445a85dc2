//! Measures the noise of the machine while clients are measured.
//!
//! Three measures: the times of a fixed loop that runs between the clients, which should be equal;
//! the CPU time that the host gave to other guests (`steal`); and the CPU time of processes other
//! than the clients and their servers. The last two come from /proc/stat (proc_stat(5)), in ticks of
//! 10 ms.

use crate::records::Noise;
use ringload_measure::figures::{children_cpu_seconds, cpu_seconds};
use ringload_measure::system::read_text;
use std::hint::black_box;
use std::time::Instant;

const TICKS_PER_SECOND: f64 = 100.0;
/// About 20 ms.
const LOOP: u64 = 20_000_000;

/// The noise of a scenario in progress.
#[derive(Debug)]
pub struct Watch {
    began: Ticks,
    loops: Vec<f64>,
    measured_seconds: f64,
}

/// CPU time of the machine since it started, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Ticks {
    busy: f64,
    stolen: f64,
    all: f64,
}

impl Watch {
    pub fn begin() -> Self {
        Self { began: Ticks::now(), loops: Vec::new(), measured_seconds: own_cpu_seconds() }
    }

    /// Runs the fixed loop once.
    pub fn listen(&mut self) {
        let began = Instant::now();
        let mut sum = 1_u64;
        for i in 0..LOOP {
            sum = black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
        }
        self.loops.push(began.elapsed().as_secs_f64());
    }

    /// The noise from the beginning until now.
    pub fn end(&self, scenario: &str) -> Noise {
        let now = Ticks::now();
        let over = |part: f64| (part / (now.all - self.began.all).max(1.0)).clamp(0.0, 1.0);
        let own = (own_cpu_seconds() - self.measured_seconds) * TICKS_PER_SECOND;
        let least = self.loops.iter().copied().reduce(f64::min).unwrap_or(1.0);
        let most = self.loops.iter().copied().reduce(f64::max).unwrap_or(1.0);
        Noise {
            scenario: scenario.to_owned(),
            loop_spread: most / least,
            stolen_share: over(now.stolen - self.began.stolen),
            others_share: over(now.busy - self.began.busy - own),
        }
    }
}

impl Ticks {
    fn now() -> Self {
        read_text("/proc/stat").and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Parses `cpu  user nice system idle iowait irq softirq steal guest guest_nice`.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with("cpu "))?;
        let ticks: Vec<f64> =
            line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, stolen, ..] = ticks[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, stolen, all: busy + stolen + idle + iowait })
    }
}

/// CPU time of this process and of the children that it has waited for. Servers of a scenario end
/// with it, so they count.
fn own_cpu_seconds() -> f64 {
    cpu_seconds().unwrap_or_default() + children_cpu_seconds().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_table_is_read() {
        let text = "cpu  10 1 5 80 4 0 2 3 0 0\ncpu0 1 1\n";
        assert_eq!(Ticks::parse(text), Some(Ticks { busy: 18.0, stolen: 3.0, all: 105.0 }));
        assert_eq!(Ticks::parse("intr 1"), None);
    }

    #[test]
    fn what_one_does_oneself_is_not_others() {
        let mut watch = Watch::begin();
        for _ in 0..5 {
            watch.listen();
        }
        let noise = watch.end("test");
        assert!(noise.loop_spread >= 1.0 && noise.others_share <= 1.0, "{noise:?}");
    }
}

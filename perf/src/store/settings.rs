//! What a store does, and the shortest time in which a load from it is possible.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The most connections of one client that count for the ideal time.
const CONNECTIONS_MAX: f64 = 512.0;

/// How much of the total rate may be made up for after a pause.
pub const TOTAL_BURST: Duration = Duration::from_millis(5);
/// The same of a connection's rate.
pub const CONNECTION_BURST: Duration = Duration::from_millis(20);
/// The same of the rate of requests.
pub const REQUEST_BURST: Duration = Duration::from_millis(100);

/// A megabyte, as in MB/s.
const MEGA: f64 = 1e6;

/// The behaviour of a store.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct Settings {
    /// Time to the first byte of an answer, in milliseconds; each takes between 0.8 and 1.2 of it
    #[arg(long, default_value_t = 0.0)]
    pub first_byte: f64,
    /// How long a new connection takes, in milliseconds: nothing is answered on it before
    #[arg(long, default_value_t = 0.0)]
    pub connect: f64,
    /// The share of answers that are late
    #[arg(long, default_value_t = 0.0)]
    pub late: f64,
    /// How many times longer the first byte of a late answer takes
    #[arg(long, default_value_t = 20.0)]
    pub late_times: f64,
    /// The rate of each connection, in MB/s
    #[arg(long)]
    pub each: Option<f64>,
    /// The rate of all connections together, in MB/s
    #[arg(long)]
    pub total: Option<f64>,
    /// The rate of requests above which they are refused with 503 SlowDown
    #[arg(long)]
    pub requests: Option<f64>,
    /// The share of bodies that stop midway
    #[arg(long, default_value_t = 0.0)]
    pub stalled: f64,
    /// The share of bodies whose connection is closed midway
    #[arg(long, default_value_t = 0.0)]
    pub cut: f64,
    /// An address to listen on, such as 127.0.0.2; several may be given
    #[arg(long = "address", default_values = ["127.0.0.1"])]
    pub addresses: Vec<Ipv4Addr>,
}

impl Settings {
    /// A store on loopback without any limit.
    pub fn local() -> Self {
        Self { addresses: vec![Ipv4Addr::LOCALHOST], ..Self::default() }
    }

    /// The rate of each connection in bytes a second.
    pub fn connection_rate(&self) -> Option<f64> {
        self.each.map(|rate| rate * MEGA)
    }

    /// The rate of all connections in bytes a second.
    pub fn total_rate(&self) -> Option<f64> {
        self.total.map(|rate| rate * MEGA)
    }

    /// How many bytes a body sends at a time: those of 10 ms.
    pub fn piece_bytes(&self) -> usize {
        let rate = self.connection_rate().into_iter().chain(self.total_rate()).reduce(f64::min);
        rate.map_or(1 << 20, |rate| ((rate / 100.0) as usize).clamp(16 << 10, 1 << 20))
    }

    /// The shortest time in which `bytes` can be loaded: the greater of those that the total rate and
    /// 512 connections allow, and two round trips, for the header and for the first bytes.
    pub fn ideal_seconds(&self, bytes: u64) -> f64 {
        self.seconds_after(bytes, 2.0)
    }

    /// The same after `round_trips`.
    pub fn seconds_after(&self, bytes: u64, round_trips: f64) -> f64 {
        let time =
            |rate: Option<f64>, many: f64| rate.map_or(0.0, |rate| bytes as f64 / rate / many);
        time(self.total_rate(), 1.0).max(time(self.connection_rate(), CONNECTIONS_MAX))
            + round_trips * self.first_byte / 1e3
    }

    /// As arguments of the process that runs the store.
    pub fn words(&self) -> String {
        let Self { first_byte, connect, late, late_times, stalled, cut, .. } = self;
        let mut words = format!(
            "--first-byte={first_byte} --connect={connect} --late={late} --late-times={late_times} \
             --stalled={stalled} --cut={cut}"
        );
        for (name, rate) in
            [("each", self.each), ("total", self.total), ("requests", self.requests)]
        {
            words.extend(rate.map(|rate| format!(" --{name}={rate}")));
        }
        words.extend(self.addresses.iter().map(|address| format!(" --address={address}")));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    const STORE: Settings = Settings {
        first_byte: 100.0,
        connect: 30.0,
        late: 0.05,
        late_times: 20.0,
        each: Some(10.0),
        total: Some(1200.0),
        requests: None,
        stalled: 0.01,
        cut: 0.0,
        addresses: Vec::new(),
    };

    #[test]
    fn the_words_are_parsed_as_the_same_settings() {
        let addresses = vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
        let settings = Settings { addresses, ..STORE };
        let words = format!("store {}", settings.words());
        assert_eq!(Command::parse_from(words.split(' ')).settings, settings);
    }

    #[test]
    fn the_ideal_is_bounded_by_the_total_rate_and_by_512_connections() {
        assert!((STORE.ideal_seconds(4_800_000_000) - 4.2).abs() < 1e-9);
        let narrow = Settings { each: Some(1.0), ..STORE };
        assert!((narrow.ideal_seconds(5_120_000_000) - 10.2).abs() < 1e-9);
        assert_eq!(Settings::default().ideal_seconds(1), 0.0);
    }
}

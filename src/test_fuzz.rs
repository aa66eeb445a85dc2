//! Campaigns of random inputs, each made from a seed, on all cores.
//!
//! The seeds `0..n` are the same inputs in every run. The variable `RINGLOAD_TEST_SEEDS` chooses other
//! ones: `5000..6000`, or `17..18` to repeat the input that a failure has printed. An input is random
//! text of known structure; there is no feedback from the coverage, so that stable Rust runs it.

use fastrand::Rng;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, available_parallelism, scope};
use std::time::{Duration, Instant};

/// How many seeds a thread takes at a time.
const AT_ONCE: u64 = 1024;

/// The seeds of a campaign that has `few` by default and twenty times as many in `tests/run.sh --full`.
fn seeds(few: u64) -> Range<u64> {
    let chosen = std::env::var("RINGLOAD_TEST_SEEDS").unwrap_or_default();
    if let Some((from, to)) = chosen.split_once("..") {
        return from.parse().unwrap()..to.parse().unwrap();
    }
    if std::env::var_os("RINGLOAD_TEST_FULL").is_some() { 0..few * 20 } else { 0..few }
}

/// Calls `judge` with the input that `make` makes from each seed. Returns the number of inputs.
///
/// # Panics
/// When `judge` panics: with the seed and the input.
pub(crate) fn campaign(
    name: &str,
    few: u64,
    make: impl Fn(&mut Rng) -> Vec<u8> + Sync,
    judge: impl Fn(&[u8]) + Sync,
) -> u64 {
    let seeds = seeds(few);
    let (next, failed, began) =
        (AtomicU64::new(seeds.start), AtomicBool::new(false), Instant::now());
    let one = |seed: u64| {
        let bytes = make(&mut Rng::with_seed(seed));
        if catch_unwind(AssertUnwindSafe(|| judge(&bytes))).is_err() {
            failed.store(true, Ordering::Relaxed);
            let range = format!("RINGLOAD_TEST_SEEDS={seed}..{}", seed + 1);
            let text = bytes.escape_ascii();
            eprintln!(
                "{name}: seed {seed} fails; {range} repeats it; its {} bytes:\n{text}",
                bytes.len()
            );
        }
    };
    let worker = || {
        let mut told = Instant::now();
        while !failed.load(Ordering::Relaxed) {
            let from = next.fetch_add(AT_ONCE, Ordering::Relaxed);
            if from >= seeds.end {
                break;
            }
            let block = from..seeds.end.min(from + AT_ONCE);
            block.take_while(|_| !failed.load(Ordering::Relaxed)).for_each(one);
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                report(name, from - seeds.start, began.elapsed());
            }
        }
    };
    scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, NonZero::get) {
            Builder::new().spawn_scoped(scope, worker).unwrap();
        }
    });
    assert!(!failed.into_inner(), "{name}: an input fails, which is printed above");
    let count = seeds.end - seeds.start;
    report(name, count, began.elapsed());
    count
}

fn report(name: &str, count: u64, elapsed: Duration) {
    let rate = count as f64 / elapsed.as_secs_f64();
    eprintln!("{name}: {count} inputs in {:.0} s, {rate:.0} a second", elapsed.as_secs_f64());
}

/// One of `choices`.
pub(crate) fn pick<'a, T: ?Sized>(rng: &mut Rng, choices: &[&'a T]) -> &'a T {
    choices[rng.usize(..choices.len())]
}

/// Characters with a meaning in JSON, XML and headers, and others that decoders trip over.
const CHARACTERS: &[u8] = b"{}[]\",:\\ 0123456789-+.eEabFU_\n\r\t\0<>/&;#=*'!?\x7f\x80\xc3\xff";

/// Words to insert into text.
const WORDS: [&str; 12] = [
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "9223372036854775807",
    "1e999",
    "null",
    "\\ud800",
    "\\u0000",
    "&#x0;",
    "<![CDATA[",
    "\u{feff}",
    "\u{202e}",
];

/// Changes, inserts or removes some bytes.
pub(crate) fn mutate_bytes(rng: &mut Rng, text: &mut Vec<u8>) {
    for _ in 0..1 + rng.usize(..3) {
        let at = rng.usize(..=text.len());
        match rng.u8(..6) {
            0 if at < text.len() => text[at] = CHARACTERS[rng.usize(..CHARACTERS.len())],
            1 if at < text.len() => text[at] ^= 1 << rng.u8(..8),
            2 if at < text.len() => drop(text.remove(at)),
            3 => text.insert(at, CHARACTERS[rng.usize(..CHARACTERS.len())]),
            4 => drop(text.splice(at..at, pick(rng, &WORDS).bytes())),
            _ => {
                // A part of the text again, elsewhere.
                let from = rng.usize(..=text.len());
                let part = text[from..text.len().min(from + rng.usize(..40))].to_vec();
                drop(text.splice(at..at, part));
            }
        }
    }
}

/// Checks that `read` does not panic, whatever it gets. Inputs are changed forms of the `examples`.
pub(crate) fn never_panics(name: &str, examples: &[&str], read: impl Fn(&[u8]) + Sync) {
    let make = |rng: &mut Rng| {
        let mut text = pick(rng, examples).as_bytes().to_vec();
        (0..rng.u8(..3)).for_each(|_| mutate_bytes(rng, &mut text));
        text
    };
    campaign(name, 2000, make, read);
}

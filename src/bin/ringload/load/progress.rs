//! The progress bar of a load: bytes, GB/s and time left, on standard error if it is a terminal.
//!
//! A separate thread reads the counters of the load's [`Progress`] ten times a second, so that the bar
//! moves while headers are read and while a large tensor arrives, and the load is not slowed down.

use crate::format;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use ringload::Progress;
use ringload::internals::spawn_scoped;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::Scope;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
const TEMPLATE: &str = "{bar:40} {done}/{all}  {speed}  {eta} left";

/// A bar that is shown; dropping it stops and clears it.
pub struct Bar {
    _stop: Sender<()>,
}

/// Shows the bar until the returned value is dropped; `None` if standard error is not a terminal
/// or no thread can be started.
pub fn show<'scope>(scope: &'scope Scope<'scope, '_>, progress: &Progress) -> Option<Bar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0).with_style(style());
    let (progress, (stop, stopped)) = (progress.clone(), mpsc::channel::<()>());
    let shown = move || {
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            bar.set_length(progress.total_bytes());
            bar.set_position(progress.done_bytes());
        }
        bar.finish_and_clear();
    };
    spawn_scoped(scope, "ringload-progress", shown).ok()?;
    Some(Bar { _stop: stop })
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template(TEMPLATE);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("done", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            write_or_ignore(out, &format::size(state.pos()));
        })
        .with_key("all", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            write_or_ignore(out, &format::size(state.len().unwrap_or(0)));
        })
        .with_key("speed", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let seconds = state.elapsed().as_secs_f64();
            write_or_ignore(
                out,
                &format::speed(format::gigabytes_per_second(state.pos(), seconds)),
            );
        })
}

/// The keys of the bar cannot report errors.
fn write_or_ignore(out: &mut dyn std::fmt::Write, text: &str) {
    let _ = out.write_str(text);
}

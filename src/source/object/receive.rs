//! Reading the body of an answer into its memory.

use crate::options::RetryLimits;
use crate::source::http::{Answered, Broken, Failure, Origin};
use std::pin::pin;
use tokio::time::{Instant, sleep_until};

/// How much is read from the socket at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Reads the body of `answered`, of exactly `into`'s length, into `into`. `got` says how far it came,
/// also when it fails; `seen` gets every piece as it comes.
///
/// # Errors
/// When the body breaks off, stalls (brings less than [`RetryLimits::STALLED_BYTES`] in
/// [`RetryLimits::stalled`]), or goes on beyond its end.
pub(super) async fn receive(
    answered: &mut Answered,
    limits: &RetryLimits,
    into: &mut [u8],
    got: &mut usize,
    seen: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), Failure> {
    let Answered { answer, origin, .. } = answered;
    let mut look = pin!(sleep_until(Instant::now() + limits.stalled));
    let mut got_at_look = 0;
    while *got < into.len() {
        let end = into.len().min(*got + PIECE_BYTES);
        let piece = &mut into[*got..end];
        tokio::select! {
            biased;
            read = answer.body.read(piece) => match read {
                Ok(0) => return Err(broken("truncated", origin)),
                Ok(bytes) => {
                    seen(&piece[..bytes]);
                    *got += bytes;
                }
                Err(cause) => {
                    let broken = Broken::passing("reset", broke_off(origin));
                    return Err(Broken { cause: Some(cause.into()), ..broken }.into());
                }
            },
            () = look.as_mut() => {
                if ((*got - got_at_look) as u64) < RetryLimits::STALLED_BYTES {
                    return Err(broken("stalled", origin));
                }
                got_at_look = *got;
                look.as_mut().reset(Instant::now() + limits.stalled);
            }
        }
    }
    if answer.body.left().is_some() {
        return Ok(()); // its length was checked before
    }
    let mut beyond = [0];
    let ending = tokio::time::timeout(limits.stalled, answer.body.read(&mut beyond));
    match ending.await {
        Ok(Ok(0)) => Ok(()),
        _ => {
            *got = 0; // which of its bytes are right, nobody knows
            Err(broken("over-long", origin))
        }
    }
}

fn broken(word: &'static str, origin: &Origin) -> Failure {
    Broken::passing(
        word,
        match word {
            "stalled" => format!("{} stopped sending in mid-body", origin.as_str()),
            "over-long" => format!("{} sends more bytes than it said", origin.as_str()),
            _ => broke_off(origin),
        },
    )
    .into()
}

fn broke_off(origin: &Origin) -> String {
    format!("{} broke off in mid-body", origin.as_str())
}

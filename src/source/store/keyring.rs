//! The credentials of a store: looked for when the first request wants them, shared by all
//! requests, renewed before they run out.
//!
//! That there are none is remembered as well, with the places looked at: public objects are read
//! without, and when that is refused the error says what was tried.

use crate::error::Result;
use reqsign_core::SigningCredential;
use reqsign_core::time::Timestamp;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Credentials that run out sooner are renewed.
const EARLY: Duration = Duration::from_secs(120);
/// The least that credentials must be good for.
const LEAST: Duration = Duration::from_secs(10);
/// How long credentials are used in any case: some last for less than [`EARLY`], and where
/// renewing fails the old ones are used up.
const YOUNG: Duration = Duration::from_secs(30);

/// What a search for credentials brought.
#[derive(Debug, Clone)]
pub(super) enum Found<C> {
    /// Credentials.
    Credential(C),
    /// None; the places looked at, or why none are to be used.
    Nothing(String),
}

/// The credentials of a store.
pub(super) struct Keyring<C> {
    held: Mutex<Option<Held<C>>>,
    /// Held by the request that searches; others wait for what it finds.
    searching: tokio::sync::Mutex<()>,
    /// Whether what was held was refused: what is found next is in its place.
    refused: AtomicBool,
}

#[derive(Clone)]
struct Held<C> {
    found: Found<C>,
    since: Instant,
    /// Whether it is in the place of what was refused.
    is_renewed: bool,
}

impl<C> Default for Keyring<C> {
    fn default() -> Self {
        let searching = tokio::sync::Mutex::default();
        Self { held: Mutex::default(), searching, refused: AtomicBool::new(false) }
    }
}

impl<C: SigningCredential> Keyring<C> {
    /// The credentials, or `None` where requests go without; `search` finds them, if need be.
    ///
    /// # Errors
    /// Those of `search`.
    pub async fn get(&self, search: impl Future<Output = Result<Found<C>>>) -> Result<Option<C>> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let _searching = self.searching.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let found = match search.await {
            Ok(found) => found,
            Err(error) => match self.last() {
                Some(last) => {
                    tracing::warn!(%error, "credentials cannot be renewed; the last are still good");
                    last
                }
                None => return Err(error),
            },
        };
        let credential = found.credential();
        let is_renewed = self.refused.swap(false, Ordering::Relaxed);
        *self.held() = Some(Held { found, since: Instant::now(), is_renewed });
        Ok(credential)
    }

    /// Where credentials were looked for, if there are none.
    pub fn nothing(&self) -> Option<String> {
        match &self.held().as_ref()?.found {
            Found::Credential(_) => None,
            Found::Nothing(places) => Some(places.clone()),
        }
    }

    /// Forgets the credentials: the server does not accept them any more. Those that were renewed a
    /// moment ago are kept: many requests with the old ones are refused at once.
    pub fn forget(&self) {
        let mut held = self.held();
        let young = |held: &Held<C>| held.since.elapsed() < Duration::from_secs(5);
        if !held.as_ref().is_some_and(|held| held.is_renewed && young(held)) {
            *held = None;
            self.refused.store(true, Ordering::Relaxed);
        }
    }

    /// What is held, if it need not be searched for again.
    fn ready(&self) -> Option<Option<C>> {
        let held = self.held();
        let held = held.as_ref()?;
        let Found::Credential(credential) = &held.found else {
            return Some(None);
        };
        let good_for = |time| credential.is_valid_at(Timestamp::now() + time);
        let ready = good_for(EARLY) || (good_for(LEAST) && held.since.elapsed() < YOUNG);
        ready.then(|| Some(credential.clone()))
    }

    /// What is held, if it is good at this moment.
    fn last(&self) -> Option<Found<C>> {
        let held = self.held();
        let found = &held.as_ref()?.found;
        let good = found.credential()?.is_valid_at(Timestamp::now() + LEAST);
        good.then(|| found.clone())
    }

    fn held(&self) -> MutexGuard<'_, Option<Held<C>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clone> Found<C> {
    fn credential(&self) -> Option<C> {
        match self {
            Found::Credential(credential) => Some(credential.clone()),
            Found::Nothing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use std::sync::atomic::AtomicUsize;

    #[derive(Debug, Clone)]
    struct Until(Timestamp);

    impl SigningCredential for Until {
        fn is_valid(&self) -> bool {
            self.is_valid_at(Timestamp::now())
        }

        fn is_valid_at(&self, time: Timestamp) -> bool {
            self.0 > time
        }
    }

    fn lasting(seconds: u64) -> Found<Until> {
        Found::Credential(Until(Timestamp::now() + Duration::from_secs(seconds)))
    }

    fn failing() -> Result<Found<Until>> {
        Err(Error::new(ErrorKind::Io, "no answer"))
    }

    #[tokio::test]
    async fn one_search_serves_all_that_wait() {
        let (keyring, searches) = (Keyring::default(), AtomicUsize::new(0));
        let one = || {
            keyring.get(async {
                searches.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(lasting(3600))
            })
        };
        let all = tokio::join!(one(), one(), one());
        assert!(all.0.unwrap().is_some() && all.1.unwrap().is_some() && all.2.unwrap().is_some());
        assert_eq!(searches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_runs_out_is_renewed_early_and_used_up_where_that_fails() {
        let keyring = Keyring::default();
        keyring.get(async { Ok(lasting(60)) }).await.unwrap().unwrap();
        // Just found: used, though it will not last long.
        keyring.get(async { failing() }).await.unwrap().unwrap();
        keyring.held().as_mut().unwrap().since -= YOUNG;
        assert!(keyring.get(async { failing() }).await.unwrap().is_some());
        keyring.held().as_mut().unwrap().since -= YOUNG;
        let renewed = keyring.get(async { Ok(lasting(3600)) }).await.unwrap().unwrap();
        assert!(renewed.is_valid_at(Timestamp::now() + Duration::from_secs(3000)));

        let keyring = Keyring::default();
        keyring.get(async { Ok(lasting(0)) }).await.unwrap();
        assert!(keyring.get(async { failing() }).await.is_err());
    }

    #[tokio::test]
    async fn what_is_refused_is_forgotten_unless_it_was_just_renewed() {
        let keyring = Keyring::default();
        keyring.get(async { Ok(lasting(1000)) }).await.unwrap();
        keyring.forget();
        keyring.get(async { Ok(lasting(3600)) }).await.unwrap();
        keyring.forget();
        assert!(keyring.get(async { failing() }).await.unwrap().is_some());
        keyring.held().as_mut().unwrap().since -= YOUNG;
        keyring.forget();
        assert!(keyring.get(async { failing() }).await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_remembered_with_the_places() {
        let keyring = Keyring::<Until>::default();
        assert_eq!(keyring.nothing(), None);
        let nothing = || async { Ok(Found::Nothing("under the mat".to_owned())) };
        assert!(keyring.get(nothing()).await.unwrap().is_none());
        assert!(keyring.get(async { failing() }).await.unwrap().is_none());
        assert_eq!(keyring.nothing().unwrap(), "under the mat");
    }
}

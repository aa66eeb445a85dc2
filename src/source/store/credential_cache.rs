//! Caches the credentials of a store. They are searched for when the first request needs them,
//! shared by all requests, and renewed before they expire.
//!
//! An unsuccessful search is remembered too, with the sources that were searched. Public objects
//! are read without credentials, and if the server denies that, the error names these sources.

use crate::error::Result;
use crate::sync::Mutex;
use reqsign_core::SigningCredential;
use reqsign_core::time::Timestamp;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Credentials are renewed when they expire sooner than this.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// Credentials that expire sooner than this are not used.
const VALID_FOR_MIN: Duration = Duration::from_secs(10);
/// Credentials younger than this are not renewed, because some are valid for less than
/// [`RENEW_BEFORE`]. If renewal fails, the old credentials are used until they expire.
const RENEW_INTERVAL: Duration = Duration::from_secs(30);
/// Renewed credentials younger than this are kept when a server reports expired credentials,
/// because several requests with the old credentials may be denied at the same time.
const KEEP_RENEWED: Duration = Duration::from_secs(5);

/// The result of a search for credentials.
#[derive(Debug, Clone)]
pub(super) enum Found<C> {
    Credential(C),
    /// There are no credentials, or they must not be used. The text lists the sources that were
    /// searched, or states the reason.
    Nothing(String),
}

/// A cache of the credentials of one store.
pub(super) struct CredentialCache<C> {
    cached: Mutex<Option<Cached<C>>>,
    /// Held by the request that searches; other requests wait for its result.
    searching: tokio::sync::Mutex<()>,
    /// Whether the last credentials were invalidated, so that the next ones count as renewed.
    invalidated: AtomicBool,
}

#[derive(Clone)]
struct Cached<C> {
    found: Found<C>,
    since: Instant,
    /// Whether these credentials replace ones that a server reported as expired.
    is_renewed: bool,
}

impl<C> Default for CredentialCache<C> {
    fn default() -> Self {
        let searching = tokio::sync::Mutex::default();
        Self { cached: Mutex::default(), searching, invalidated: AtomicBool::new(false) }
    }
}

impl<C: SigningCredential> CredentialCache<C> {
    /// The credentials, or `None` if the search found none. Awaits `search` if the cache has no
    /// usable result.
    ///
    /// # Errors
    /// The errors of `search`, unless the cached credentials are still valid.
    pub async fn get(&self, search: impl Future<Output = Result<Found<C>>>) -> Result<Option<C>> {
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let _searching = self.searching.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let found = match (search.await, self.still_valid()) {
            (Ok(found), _) => found,
            (Err(error), Some(credential)) => {
                tracing::warn!(%error, "cannot renew the credentials; the old ones are still valid");
                Found::Credential(credential)
            }
            (Err(error), None) => return Err(error),
        };
        let credential = found.credential().cloned();
        let is_renewed = self.invalidated.swap(false, Ordering::Relaxed);
        *self.cached.lock() = Some(Cached { found, since: Instant::now(), is_renewed });
        Ok(credential)
    }

    /// The sources that were searched, if the search found no credentials.
    pub fn nothing(&self) -> Option<String> {
        match &self.cached.lock().as_ref()?.found {
            Found::Credential(_) => None,
            Found::Nothing(places) => Some(places.clone()),
        }
    }

    /// Drops credentials that the server reported as expired.
    pub fn invalidate(&self) {
        let mut cached = self.cached.lock();
        let is_new =
            |cached: &Cached<C>| cached.is_renewed && cached.since.elapsed() < KEEP_RENEWED;
        if !cached.as_ref().is_some_and(is_new) {
            *cached = None;
            self.invalidated.store(true, Ordering::Relaxed);
        }
    }

    /// The cached result, if no new search is due.
    fn fresh(&self) -> Option<Option<C>> {
        let cached = self.cached.lock();
        let cached = cached.as_ref()?;
        let Found::Credential(credential) = &cached.found else {
            return Some(None);
        };
        let valid_for = |time| credential.is_valid_at(Timestamp::now() + time);
        let is_fresh = valid_for(RENEW_BEFORE)
            || (valid_for(VALID_FOR_MIN) && cached.since.elapsed() < RENEW_INTERVAL);
        is_fresh.then(|| Some(credential.clone()))
    }

    /// The cached credentials, if they have not expired.
    fn still_valid(&self) -> Option<C> {
        let cached = self.cached.lock();
        let credential = cached.as_ref()?.found.credential()?;
        credential.is_valid_at(Timestamp::now() + VALID_FOR_MIN).then(|| credential.clone())
    }
}

impl<C> Found<C> {
    fn credential(&self) -> Option<&C> {
        match self {
            Found::Credential(credential) => Some(credential),
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
    async fn one_search_serves_all_waiting_requests() {
        let (cache, searches) = (CredentialCache::default(), AtomicUsize::new(0));
        let one = || {
            cache.get(async {
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
    async fn credentials_are_renewed_early_and_used_until_they_expire_where_renewal_fails() {
        let cache = CredentialCache::default();
        cache.get(async { Ok(lasting(60)) }).await.unwrap().unwrap();
        // Just found: used, though it will not last long.
        cache.get(async { failing() }).await.unwrap().unwrap();
        cache.cached.lock().as_mut().unwrap().since -= RENEW_INTERVAL;
        assert!(cache.get(async { failing() }).await.unwrap().is_some());
        cache.cached.lock().as_mut().unwrap().since -= RENEW_INTERVAL;
        let renewed = cache.get(async { Ok(lasting(3600)) }).await.unwrap().unwrap();
        assert!(renewed.is_valid_at(Timestamp::now() + Duration::from_secs(3000)));

        let cache = CredentialCache::default();
        cache.get(async { Ok(lasting(0)) }).await.unwrap();
        assert!(cache.get(async { failing() }).await.is_err());
    }

    #[tokio::test]
    async fn invalid_credentials_are_dropped_unless_they_were_just_renewed() {
        let cache = CredentialCache::default();
        cache.get(async { Ok(lasting(1000)) }).await.unwrap();
        cache.invalidate();
        cache.get(async { Ok(lasting(3600)) }).await.unwrap();
        cache.invalidate();
        assert!(cache.get(async { failing() }).await.unwrap().is_some());
        cache.cached.lock().as_mut().unwrap().since -= RENEW_INTERVAL;
        cache.invalidate();
        assert!(cache.get(async { failing() }).await.is_err());
    }

    #[tokio::test]
    async fn an_unsuccessful_search_is_remembered_with_its_places() {
        let cache = CredentialCache::<Until>::default();
        assert_eq!(cache.nothing(), None);
        let nothing = || async { Ok(Found::Nothing("under the mat".to_owned())) };
        assert!(cache.get(nothing()).await.unwrap().is_none());
        assert!(cache.get(async { failing() }).await.unwrap().is_none());
        assert_eq!(cache.nothing().unwrap(), "under the mat");
    }
}

//! The interface through which the HTTP client uses the rules of a store.

use super::client::Client;
use super::error_response::{ErrorAction, ErrorResponse};
use crate::error::Result;
use async_trait::async_trait;
use http::request::Parts;
use std::sync::Arc;
use std::time::SystemTime;

/// How requests to one store are authorized, and what its error responses mean.
#[async_trait]
pub(crate) trait RequestPolicy: Send + Sync {
    /// Adds the authorization to a request, immediately before each attempt to send it. `now` is
    /// the time by the server's clock.
    ///
    /// # Errors
    /// When credentials cannot be obtained.
    async fn authorize(
        &self,
        client: &Arc<Client>,
        head: &mut Parts,
        now: SystemTime,
    ) -> Result<()>;

    /// Decides what to do after an error response. A store handles its own error codes here and
    /// leaves the others to [`ErrorResponse::default_action`].
    fn classify(&self, response: &ErrorResponse) -> ErrorAction {
        response.default_action()
    }

    /// Drops credentials that the server reported as expired; the next request obtains new ones.
    fn renew_credentials(&self) {}

    /// Whether the client follows redirects. Stores that sign each request for its own URL return
    /// false and classify the redirect instead.
    fn follows_redirects(&self) -> bool {
        true
    }
}

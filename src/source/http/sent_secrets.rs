//! The secrets that a request holds, which are removed from whatever the server answers.
//!
//! A server, or a proxy in front of it, may repeat a request in its response: S3 quotes what was
//! signed, and debugging servers echo all headers. Its words are part of our messages, so they lose
//! the secrets first. The secrets of a request travel with its response, as an extension.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use percent_encoding::percent_decode_str;

/// Shorter texts are no secrets, and removing them would garble messages.
const BYTES_MIN: usize = 6;
/// Stands for a secret.
const REMOVED: &str = "[removed]";
/// The headers whose values are secret even if they are not marked as sensitive.
const HEADERS: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-amz-security-token",
    "x-amz-sso_bearer_token",
    "x-aws-ec2-metadata-token",
    "x-identity-header",
    "x-goog-iam-authorization-token",
];
/// Parts of the names of parameters whose values are secret.
const PARAMETERS: [&str; 8] =
    ["sig", "token", "secret", "key", "credential", "pass", "auth", "assertion"];
/// The headers of responses that hold URLs, which may have to repeat a token of the request.
const URL_HEADERS: [HeaderName; 2] = [header::LOCATION, header::LINK];

/// The secrets of a request.
#[derive(Clone, Default)]
pub(crate) struct SentSecrets(Vec<String>);

impl SentSecrets {
    /// The secrets of a request with `head` and a form as `body`.
    pub fn of(head: &Parts, body: &[u8]) -> Self {
        let mut secrets = Self::default();
        for (name, value) in &head.headers {
            if value.is_sensitive() || HEADERS.contains(&name.as_str()) {
                secrets.add_header(&String::from_utf8_lossy(value.as_bytes()));
            }
        }
        if let Some((user, _)) = head.uri.authority().and_then(|a| a.as_str().rsplit_once('@')) {
            user.split(':').chain([user]).for_each(|part| secrets.add(part));
        }
        secrets.add_parameters(head.uri.query().unwrap_or_default());
        secrets.add_parameters(std::str::from_utf8(body).unwrap_or_default());
        // A secret that contains another one is removed first.
        secrets.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.0.dedup();
        secrets
    }

    fn add_header(&mut self, value: &str) {
        self.add(value);
        for word in value.split([' ', ',']) {
            self.add(word);
            // `Signature=...`, whose name is no secret, but also base64, which ends in `=`.
            word.split_once('=').into_iter().for_each(|(_, secret)| self.add(secret));
            let decoded =
                STANDARD.decode(word).ok().and_then(|plain| String::from_utf8(plain).ok());
            if let Some(basic) = decoded.filter(|plain| plain.contains(':')) {
                basic.splitn(2, ':').chain([basic.as_str()]).for_each(|part| self.add(part));
            }
        }
    }

    fn add_parameters(&mut self, query: &str) {
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let name = name.to_ascii_lowercase();
            if PARAMETERS.iter().any(|part| name.contains(part)) {
                self.add(value);
                self.add(&percent_decode_str(value).decode_utf8_lossy());
            }
        }
    }

    fn add(&mut self, secret: &str) {
        // Names of algorithms are no secrets.
        if secret.len() >= BYTES_MIN && !["Bearer", "AWS4-HMAC-SHA256"].contains(&secret) {
            self.0.push(secret.to_owned());
        }
    }

    /// `text` without the secrets.
    pub fn removed_from(&self, text: &str) -> String {
        let remove = |text: String, secret: &String| text.replace(secret.as_str(), REMOVED);
        self.0.iter().fold(text.to_owned(), remove)
    }

    /// The body of an error response without the secrets.
    pub fn removed_from_body(&self, body: Bytes) -> Bytes {
        let holds =
            |secret: &String| body.windows(secret.len()).any(|window| window == secret.as_bytes());
        match self.0.iter().any(holds) {
            true => self.removed_from(&String::from_utf8_lossy(&body)).into(),
            false => body,
        }
    }

    /// Removes the secrets from the headers of a response.
    pub fn remove_from_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in headers.iter_mut().filter(|(name, _)| !URL_HEADERS.contains(name)) {
            let Ok(text) = value.to_str() else { continue };
            let cleaned = self.removed_from(text);
            if cleaned != text {
                tracing::debug!(%name, "a header of the response repeats a secret of the request");
                *value = HeaderValue::from_str(&cleaned).unwrap_or(HeaderValue::from_static(""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn what_was_sent_is_removed_in_every_form() {
        let basic = STANDARD.encode("user:pass-word");
        let request =
            Request::get("https://user:s3cret-1@h/x?X-Amz-Signature=s3cret%2D2&prefix=models")
                .header("Authorization", "Bearer s3cret-3")
                .header("Proxy-Authorization", format!("Basic {basic}"))
                .header("X-Plain", "plain-text");
        let secrets =
            SentSecrets::of(&request.body(()).unwrap().into_parts().0, b"a=b&Token=s3cret-4");
        let cleaned = |text: &str| secrets.removed_from_body(Bytes::from(text.to_owned()));
        let echo = format!("s3cret-1 s3cret%2D2 s3cret-2 s3cret-3 {basic} pass-word s3cret-4");
        assert_eq!(cleaned(&echo), [REMOVED; 7].join(" "));
        assert_eq!(cleaned("Bearer models plain-text h"), "Bearer models plain-text h");
        let mut headers = HeaderMap::new();
        headers.insert("x-error-message", HeaderValue::from_static("no s3cret-3"));
        headers.insert("location", HeaderValue::from_static("/y?X-Amz-Signature=s3cret%2D2"));
        secrets.remove_from_headers(&mut headers);
        assert_eq!(headers["x-error-message"], "no [removed]");
        assert_eq!(headers["location"], "/y?X-Amz-Signature=s3cret%2D2");
    }
}

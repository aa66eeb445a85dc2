//! URLs, all sources of credentials with emulated servers, and listings of several pages.

use super::*;
use crate::location::Scheme;
use crate::source::Cancellation;
use crate::source::store::Stores;
use crate::source::store::credential_cache::Found;
use crate::source::store::metadata;
use crate::test_server::{Server, TestRequest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use reqsign_core::{Context, HttpSend};
use serde_json::json;
use std::sync::Mutex;
use std::time::Instant;

/// No metadata server, whatever machine the tests run on.
const NO_MACHINE: (&str, &str) = ("NO_GCE_CHECK", "true");

fn gcs(variables: &[(&str, &str)]) -> Gcs {
    Gcs::new(&RemoteOptions::with_variables(variables), &bucket()).unwrap()
}

fn bucket() -> ObjectUri {
    ObjectUri::new(Scheme::Gs, "my-bucket", "model/x.safetensors")
}

/// The token that `search` finds with `variables`.
fn token(variables: &[(&str, &str)]) -> Result<Option<String>> {
    let client = Client::new(RemoteOptions::with_variables(variables));
    let context = context(&client);
    client.block_on(&Cancellation::new(), async move {
        Ok(match credentials::search(&context).await? {
            Found::Credential(credential) => Some(credential.token.unwrap().access_token),
            Found::Nothing(_) => None,
        })
    })
}

fn write(name: &str, content: &serde_json::Value) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn urls_are_those_of_the_xml_api() {
    let url = |variables: &[(&str, &str)]| gcs(variables).url("a b/ü%41+.st").unwrap().to_string();
    let path = "my-bucket/a%20b/%C3%BC%2541%2B.st";
    assert_eq!(url(&[]), format!("https://storage.googleapis.com/{path}"));
    assert_eq!(
        url(&[("STORAGE_EMULATOR_HOST", "localhost:99")]),
        format!("http://localhost:99/{path}")
    );
    let with_scheme = [("STORAGE_EMULATOR_HOST", "http://localhost:99/")];
    assert_eq!(url(&with_scheme), format!("http://localhost:99/{path}"));
    assert_eq!(gcs(&[]).url("").unwrap_err().kind(), ErrorKind::InvalidInput);
    let bad = Gcs::new(
        &RemoteOptions::with_variables(&[("STORAGE_EMULATOR_HOST", "ftp://x")]),
        &bucket(),
    );
    assert_eq!(bad.err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[test]
fn tokens_are_for_google_alone() {
    for (endpoint, google) in [
        ("https://storage.googleapis.com", true),
        ("https://storage-psc.p.googleapis.com", true),
        ("http://storage.googleapis.com", false),
        ("https://storage.googleapis.com.evil.org", false),
        ("https://evilgoogleapis.com", false),
        ("http://127.0.0.1:1", false),
    ] {
        assert_eq!(is_google(endpoint), google, "{endpoint}");
        let options = RemoteOptions {
            endpoint: Some(endpoint.to_owned()),
            ..RemoteOptions::with_variables(&[])
        };
        let gcs = Gcs::new(&options, &bucket()).unwrap();
        assert_eq!(gcs.without_credentials().is_none(), google, "{endpoint}");
    }
    assert!(
        gcs(&[("RINGLOAD_GCS_ANONYMOUS", "1")])
            .without_credentials()
            .unwrap()
            .contains("ANONYMOUS")
    );
    assert!(
        gcs(&[("RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS", "true")])
            .without_credentials()
            .is_some()
    );
}

#[test]
fn the_metadata_server_is_asked_as_it_wants() {
    let server = Server::start(|request: &TestRequest| {
        let here = request
            .line
            .starts_with("GET /computeMetadata/v1/instance/service-accounts/default/token");
        match here && request.header("metadata-flavor") == "Google" {
            true => (200, r#"{"access_token": "of-the-machine", "expires_in": 3599}"#.to_owned()),
            false => (403, String::new()),
        }
    });
    let host = server.host();
    assert_eq!(token(&[("GCE_METADATA_HOST", &host)]).unwrap().unwrap(), "of-the-machine");
    assert!(server.requests()[0].line.contains("devstorage.read_only"), "{:?}", server.requests());

    // The same through a request for the service: found once, sent as a header, never printed.
    let client = Client::new(RemoteOptions::with_variables(&[("GCE_METADATA_HOST", &host)]));
    let uri = bucket();
    let work = {
        let client = Arc::clone(&client);
        async move {
            let store = Stores::default().of(&client, &uri)?;
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (mut head, ()) = Request::new(()).into_parts();
                store.authorize(&client, &mut head, SystemTime::now()).await?;
                seen.push(head.headers[header::AUTHORIZATION].clone());
            }
            Ok(seen)
        }
    };
    let seen = client.block_on(&Cancellation::new(), work).unwrap();
    assert!(seen.iter().all(|value| value == "Bearer of-the-machine" && value.is_sensitive()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_does_not_answer_costs_a_second() {
    // Listens, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let client = Client::new(RemoteOptions::with_variables(&[("GCE_METADATA_HOST", &host)]));
    let context = context(&client);
    let outcome = client.block_on(&Cancellation::new(), async move {
        let question = context.http_send(get(url(&format!("http://{host}/"), "a test")?));
        Ok(metadata::request(false, question).await.is_none())
    });
    assert!(outcome.unwrap());
    // Other requests wait this long for their response.
    assert!(began.elapsed() < client.options.retries.first_byte, "{:?}", began.elapsed());
}

#[test]
fn without_credentials_the_places_are_listed() {
    let client = Client::new(RemoteOptions::with_variables(&[NO_MACHINE, ("HOME", "/nowhere")]));
    let context = context(&client);
    let found = client
        .block_on(&Cancellation::new(), async move { credentials::search(&context).await })
        .unwrap();
    let Found::Nothing(places) = found else { panic!("{found:?}") };
    for place in ["GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/.config/gcloud/", "metadata server"] {
        assert!(places.contains(place), "{places}");
    }
}

#[test]
fn credentials_that_were_named_must_work() {
    let missing = [NO_MACHINE, ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")];
    let error = token(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for word in ["/nowhere/key.json", "GOOGLE_APPLICATION_CREDENTIALS", "RINGLOAD_GCS_ANONYMOUS"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let (_directory, path) =
        write("key.json", &json!({"type": "service_account", "private_key": "s3cret"}));
    let error = token(&[NO_MACHINE, ("RUNAI_STREAMER_GCS_CREDENTIAL_FILE", &path)]).unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[test]
fn an_external_account_exchanges_its_token() {
    let server = Server::start(|request: &TestRequest| {
        let exchange =
            request.line == "POST /v1/token" && request.body.contains("subject_token=of-the-pod");
        match exchange {
            true => (
                200,
                r#"{"access_token": "of-google", "expires_in": 3599, "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}"#
                    .to_owned(),
            ),
            false => (400, r#"{"error": "invalid_grant"}"#.to_owned()),
        }
    });
    let account = |subject: &str| {
        json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", server.url()),
            "credential_source": { "file": subject, "format": { "type": "text" } },
        })
    };
    let directory = tempfile::tempdir().unwrap();
    let subject = directory.path().join("token");
    std::fs::write(&subject, "of-the-pod").unwrap();
    let (_directory, path) = write("external.json", &account(subject.to_str().unwrap()));
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str())];
    assert_eq!(token(&named).unwrap().unwrap(), "of-google");

    std::fs::write(&subject, "of-another-pod").unwrap();
    let error = token(&named).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(!format!("{error:?}").contains("of-another-pod"), "{error:?}");
}

/// Google's token server, whose address no credentials file can change: receives the requests that
/// would be sent to it.
#[derive(Debug)]
struct TokenServer {
    public_key: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl HttpSend for TokenServer {
    async fn http_send(
        &self,
        request: Request<Bytes>,
    ) -> reqsign_core::Result<http::Response<Bytes>> {
        assert_eq!(request.uri(), "https://oauth2.googleapis.com/token");
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        self.requests.lock().unwrap().push(body.clone());
        let granted = body.contains("refresh_token") || self.is_signed(&body);
        let (status, text) = match granted {
            true => (200, r#"{"access_token": "granted", "expires_in": 3599}"#),
            false => (400, r#"{"error": "invalid_grant"}"#),
        };
        Ok(http::Response::builder().status(status).body(text.into()).unwrap())
    }
}

impl TokenServer {
    /// Whether the JWT in `body` is signed with the account's key, and says what it should.
    fn is_signed(&self, body: &str) -> bool {
        let jwt = body.split("assertion=").nth(1).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        claims["iss"] == "loader@project.iam.gserviceaccount.com"
            && claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_only"
            && key.verify(signed.as_bytes(), &signature).is_ok()
    }
}

fn service_account(key: &KeyPair) -> serde_json::Value {
    let der = key.as_der().unwrap();
    let der: &[u8] = der.as_ref();
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let (kind, lines) = ("PRIVATE KEY", lines.join("\n"));
    let pem = format!("-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n");
    json!({
        "type": "service_account",
        "client_email": "loader@project.iam.gserviceaccount.com",
        "private_key": pem,
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

/// The result of `search` with the application default credentials `content` of gcloud, and the number
/// of requests to the token server.
async fn exchanged(
    content: &serde_json::Value,
    key: &KeyPair,
) -> (Result<Found<Credential>>, usize) {
    let (directory, _) = write("application_default_credentials.json", content);
    let home = directory.path().to_str().unwrap();
    let client =
        Client::new(RemoteOptions::with_variables(&[NO_MACHINE, ("CLOUDSDK_CONFIG", home)]));
    let public_key: &[u8] = key.public_key().as_ref();
    let (public_key, requests) = (public_key.to_vec(), Arc::new(Mutex::new(Vec::new())));
    let server = TokenServer { public_key, requests: Arc::clone(&requests) };
    let context: Context = context(&client).with_http_send(server);
    let found = credentials::search(&context).await;
    let times = requests.lock().unwrap().len();
    (found, times)
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let (found, times) = exchanged(&service_account(&key), &key).await;
    let Found::Credential(credential) = found.unwrap() else { panic!("nothing") };
    assert_eq!(credential.token.unwrap().access_token, "granted");
    assert_eq!(times, 1);

    let other = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let (refused, _) = exchanged(&service_account(&other), &key).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_user_s_login_is_refreshed() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let login = json!({
        "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
    });
    let (found, _) = exchanged(&login, &key).await;
    let Found::Credential(credential) = found.unwrap() else { panic!("nothing") };
    assert_eq!(credential.token.unwrap().access_token, "granted");
}

/// Runs `work` with the store of an emulated server.
fn with_store<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    server: &Server,
    work: impl FnOnce(Arc<Client>, Arc<dyn Store>) -> F,
) -> Result<T> {
    let client =
        Client::new(RemoteOptions::with_variables(&[("STORAGE_EMULATOR_HOST", &server.host())]));
    let store = Stores::default().of(&client, &bucket()).unwrap();
    client.block_on(&Cancellation::new(), work(Arc::clone(&client), store))
}

#[test]
fn listings_are_read_to_their_end() {
    let server =
        Server::start(|request: &TestRequest| match request.line.contains("pageToken=two") {
            false => (
                200,
                r#"{"items": [{"name": "m/1.safetensors"}], "nextPageToken": "two"}"#.to_owned(),
            ),
            true => (
                200,
                r#"{"prefixes": ["m/deep/"], "items": [{"name": "m/2.safetensors"}]}"#.to_owned(),
            ),
        });
    let list =
        |client: Arc<Client>, store: Arc<dyn Store>| async move { store.list(&client, "m/").await };
    let names = with_store(&server, list).unwrap().unwrap();
    assert_eq!(names, ["1.safetensors", "2.safetensors"]);
    assert!(
        server.requests()[0]
            .line
            .starts_with("GET /storage/v1/b/my-bucket/o?prefix=m%2F&delimiter=%2F")
    );
}

#[test]
fn a_listing_without_end_is_an_error() {
    let server = Server::start(|_: &TestRequest| (200, r#"{"nextPageToken": "again"}"#.to_owned()));
    let list =
        |client: Arc<Client>, store: Arc<dyn Store>| async move { store.list(&client, "m/").await };
    let error = with_store(&server, list).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("gs://my-bucket/m/"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn checksums_come_from_the_metadata() {
    let server = Server::start(|_: &TestRequest| (200, r#"{"crc32c": "4waSgw=="}"#.to_owned()));
    let checksum = |client: Arc<Client>, store: Arc<dyn Store>| async move {
        store.checksum(&client, "m/x").await
    };
    assert_eq!(with_store(&server, checksum).unwrap(), Some(Checksum::Crc32c(0xE306_9283)));
    assert_eq!(server.requests()[0].line, "GET /storage/v1/b/my-bucket/o/m%2Fx?fields=crc32c");
}

#[test]
fn an_emulator_may_know_only_the_json_api() {
    let gcs = gcs(&[("STORAGE_EMULATOR_HOST", "localhost:99")]);
    let response = ErrorResponse {
        status: http::StatusCode::NOT_FOUND,
        headers: http::HeaderMap::new(),
        body: Bytes::new(),
    };
    assert!(matches!(gcs.classify(&response), ErrorAction::RetryOnce(_)));
    let url = gcs.url("m/x").unwrap().to_string();
    assert_eq!(url, "http://localhost:99/storage/v1/b/my-bucket/o/m%2Fx?alt=media");
    assert!(matches!(gcs.classify(&response), ErrorAction::Fail(ErrorKind::NotFound, _)));
}

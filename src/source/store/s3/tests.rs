use super::*;
use crate::error::ErrorKind;
use crate::location::ObjectUri;
use crate::location::Scheme;
use crate::options::RemoteOptions;
use crate::source::Cancellation;
use crate::source::store::Stores;
use crate::test_server::{Server, TestResponse};
use http::{HeaderMap, StatusCode};

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];

fn store(env: &[(&str, &str)]) -> S3Bucket {
    let uri = ObjectUri::new(Scheme::S3, "models", "");
    S3Bucket::new(&RemoteOptions::with_variables(env), &uri, &Arc::default()).unwrap()
}

fn response(status: u16, code: &str) -> ErrorResponse {
    let body = match code {
        "" => String::new(),
        code => format!("<Error><Code>{code}</Code><Message>Because.</Message></Error>"),
    };
    let status = StatusCode::from_u16(status).unwrap();
    ErrorResponse { status, headers: HeaderMap::new(), body: body.into() }
}

#[test]
fn error_codes_have_their_actions() {
    let store = store(&[]);
    for (status, code, action) in [
        (503, "SlowDown", ErrorAction::Retry { throttled: true }),
        (503, "", ErrorAction::Retry { throttled: true }),
        (400, "RequestLimitExceeded", ErrorAction::Retry { throttled: true }),
        (500, "InternalError", ErrorAction::Retry { throttled: false }),
        (400, "RequestTimeout", ErrorAction::Retry { throttled: false }),
        (500, "", ErrorAction::Retry { throttled: false }),
        (400, "ExpiredToken", ErrorAction::RenewCredentials),
        (403, "RequestExpired", ErrorAction::RenewCredentials),
        (400, "TokenRefreshRequired", ErrorAction::RenewCredentials),
        (403, "RequestTimeTooSkewed", ErrorAction::CorrectClock),
    ] {
        assert_eq!(store.classify(&response(status, code)), action, "{code}");
    }
}

#[test]
fn failures_have_kind_code_and_remedy() {
    let anonymous = store(&[("AWS_NO_SIGN_REQUEST", "true")]);
    let store = store(&[]);
    for (store, status, code, kind, words) in [
        (&store, 404, "NoSuchBucket", ErrorKind::NotFound, "(NoSuchBucket: Because)"),
        (&store, 404, "NoSuchKey", ErrorKind::NotFound, "check the bucket and the key"),
        (&store, 404, "", ErrorKind::NotFound, "no such object: the server answered 404"),
        (&store, 403, "AccessDenied", ErrorKind::PermissionDenied, "s3:GetObject"),
        (&store, 403, "", ErrorKind::PermissionDenied, "access is denied: the server answered 403"),
        (
            &store,
            403,
            "SignatureDoesNotMatch",
            ErrorKind::PermissionDenied,
            "AWS_SECRET_ACCESS_KEY",
        ),
        (&store, 403, "InvalidAccessKeyId", ErrorKind::PermissionDenied, "AWS_ACCESS_KEY_ID"),
        (&store, 400, "InvalidToken", ErrorKind::PermissionDenied, "AWS_SESSION_TOKEN"),
        (&anonymous, 403, "AccessDenied", ErrorKind::PermissionDenied, "anonymous access"),
        (&store, 403, "InvalidObjectState", ErrorKind::Unsupported, "restore it first"),
        (&store, 400, "KeyTooLongError", ErrorKind::InvalidInput, "(KeyTooLongError)"),
        (&store, 412, "PreconditionFailed", ErrorKind::Changed, "replaced"),
    ] {
        let ErrorAction::Fail(found, sentence) = store.classify(&response(status, code)) else {
            panic!("{code}")
        };
        assert_eq!(found, kind, "{code}");
        assert!(sentence.contains(words), "{code}: {sentence}");
    }
}

#[test]
fn the_region_is_learnt_from_the_response() {
    let region = |answer: &ErrorResponse| {
        let store = store(&[("AWS_REGION", "us-west-2")]);
        let action = store.classify(answer);
        (action, store.url("k").unwrap().host().unwrap().to_owned())
    };
    let learnt = (ErrorAction::RetryOnce("region"), "models.s3.eu-west-1.amazonaws.com".to_owned());
    for status in [301, 307, 400] {
        let mut by_header = response(status, "");
        by_header.headers.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        assert_eq!(region(&by_header), learnt);
    }
    let mut by_document = response(400, "");
    by_document.body = "<Error><Code>AuthorizationHeaderMalformed</Code>\
                        <Region>eu-west-1</Region></Error>"
        .into();
    assert_eq!(region(&by_document), learnt);

    let mut evil = response(301, "");
    evil.headers.insert("x-amz-bucket-region", "evil.example.com/".parse().unwrap());
    for answer in [evil, response(301, "PermanentRedirect")] {
        let (action, host) = region(&answer);
        assert!(matches!(&action, ErrorAction::Fail(ErrorKind::InvalidInput, sentence)
            if sentence.contains("AWS_REGION")));
        assert_eq!(host, "models.s3.us-west-2.amazonaws.com");
    }
}

#[test]
fn regions_have_an_order_of_precedence() {
    let host = |env: &[(&str, &str)], option: Option<&str>| {
        let mut options = RemoteOptions::with_variables(env);
        options.region = option.map(str::to_owned);
        let uri = ObjectUri::new(Scheme::S3, "b", "");
        let store = S3Bucket::new(&options, &uri, &Arc::default()).unwrap();
        store.url("k").unwrap().host().unwrap().to_owned()
    };
    let env = [("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")];
    assert_eq!(host(&env, Some("eu-west-3")), "b.s3.eu-west-3.amazonaws.com");
    assert_eq!(host(&env, None), "b.s3.eu-west-1.amazonaws.com");
    assert_eq!(host(&env[1..], None), "b.s3.eu-west-2.amazonaws.com");
    assert_eq!(host(&[], None), "b.s3.us-east-1.amazonaws.com");

    let uri = ObjectUri::new(Scheme::S3, "b", "");
    let odd = [("AWS_REGION", "RegionOne")];
    let refused =
        S3Bucket::new(&RemoteOptions::with_variables(&odd), &uri, &Arc::default()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let elsewhere = [odd[0], ("AWS_ENDPOINT_URL", "http://ceph")];
    assert!(
        S3Bucket::new(&RemoteOptions::with_variables(&elsewhere), &uri, &Arc::default()).is_ok()
    );
}

/// Runs `work` with the store of `s3://models/` on `server`.
fn with_store<T: Send + 'static>(
    server: &Server,
    more: &[(&str, &str)],
    work: impl AsyncFnOnce(Arc<Client>, Arc<dyn Store>) -> Result<T>,
) -> Result<T> {
    let url = server.url();
    let env = [&KEYS[..], &[("AWS_ENDPOINT_URL", url.as_str())], more].concat();
    let client = Client::new(RemoteOptions::with_variables(&env));
    let store = Stores::default().of(&client, &ObjectUri::new(Scheme::S3, "models", "")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(client, store))
}

#[test]
fn listings_are_read_to_their_end() {
    let server = Server::start(|request| {
        let second = request.line.contains("continuation-token=t%2F1%3D&");
        let (key, more) = match second {
            false => (
                "m/a.safetensors",
                "<IsTruncated>true</IsTruncated>\
                       <NextContinuationToken>t/1=</NextContinuationToken>",
            ),
            true => ("m/b+b.safetensors", "<IsTruncated>false</IsTruncated>"),
        };
        let page = format!(
            "<ListBucketResult><EncodingType>url</EncodingType>{more}\
             <Contents><Key>{key}</Key></Contents></ListBucketResult>"
        );
        (200, page)
    });
    let names =
        with_store(&server, &[], async |client, store| store.list(&client, "m/").await).unwrap();
    assert_eq!(names, Some(vec!["a.safetensors".to_owned(), "b b.safetensors".to_owned()]));
    let request = server.requests();
    let first = "GET /models/?delimiter=%2F&encoding-type=url&list-type=2&prefix=m%2F";
    assert_eq!((request.len(), request[0].line.as_str()), (2, first));
    assert!(request.iter().all(|one| one.header("authorization").starts_with("AWS4-HMAC-SHA256 ")));
}

#[test]
fn a_listing_without_end_is_an_error() {
    let server = Server::start(|_| {
        let page = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                    <NextContinuationToken>same</NextContinuationToken></ListBucketResult>";
        (200, page.to_owned())
    });
    let listing = with_store(&server, &[], async |client, store| store.list(&client, "m/").await);
    let error = listing.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("s3://models/m/"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn checksums_are_requested_by_head_in_the_bucket_s_region() {
    let server = Server::start(|request| {
        if !request.header("authorization").contains("/eu-west-1/s3/aws4_request") {
            return TestResponse::new(400, "").with("x-amz-bucket-region", "eu-west-1");
        }
        assert_eq!(request.line, "HEAD /models/a%20b");
        assert_eq!(request.header("x-amz-checksum-mode"), "ENABLED");
        let signed = request.header("authorization").contains("x-amz-checksum-mode");
        assert!(signed, "{request:?}");
        TestResponse::new(200, "").with("x-amz-checksum-crc32", "y/Q5Jg==")
    });
    let checksum =
        with_store(&server, &[], async |client, store| store.checksum(&client, "a b").await);
    assert_eq!(checksum.unwrap(), Some(Checksum::Crc32(0xCBF4_3926)));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn anonymous_requests_are_not_signed() {
    for name in ["RUNAI_STREAMER_S3_UNSIGNED", "AWS_NO_SIGN_REQUEST"] {
        let server = Server::start(|_| (200, "<ListBucketResult/>".to_owned()));
        let listing = with_store(&server, &[(name, "1")], async |client, store| {
            store.list(&client, "").await
        });
        assert_eq!(listing.unwrap(), Some(Vec::new()));
        let request = server.requests();
        assert_eq!((request.len(), request[0].header("authorization")), (1, ""));
    }
}

#[test]
fn a_wrong_clock_is_corrected_once() {
    let server = Server::start(|request| match request.header("x-amz-date").starts_with("2030") {
        true => TestResponse::new(200, "<ListBucketResult/>"),
        false => TestResponse::new(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>")
            .with("Date", "Tue, 01 Jan 2030 12:00:00 GMT"),
    });
    let listing = with_store(&server, &[], async |client, store| store.list(&client, "").await);
    assert_eq!(listing.unwrap(), Some(Vec::new()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn expired_credentials_are_renewed_once() {
    let given = std::sync::atomic::AtomicUsize::new(0);
    let agent = Server::start(move |_| {
        let id = given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let keys = format!("{{\"AccessKeyId\": \"KEY{id}\", \"SecretAccessKey\": \"s3cret\"}}");
        (200, keys)
    });
    let listed = |good: &'static str| {
        let server =
            Server::start(move |request| match request.header("authorization").contains(good) {
                true => (200, "<ListBucketResult/>".to_owned()),
                false => (400, "<Error><Code>ExpiredToken</Code></Error>".to_owned()),
            });
        let (url, agent) = (server.url(), agent.url());
        let env =
            [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent)];
        let client = Client::new(RemoteOptions::with_variables(&env));
        let store =
            Stores::default().of(&client, &ObjectUri::new(Scheme::S3, "models", "")).unwrap();
        let asking = Arc::clone(&client);
        let listing =
            client.block_on(&Cancellation::new(), async move { store.list(&asking, "").await });
        (listing, server.requests().len())
    };
    let (listing, requests) = listed("Credential=KEY1/");
    assert_eq!((listing.unwrap(), requests), (Some(Vec::new()), 2));
    let (listing, requests) = listed("Credential=KEY9/");
    let error = listing.unwrap_err();
    assert_eq!((error.kind(), requests), (ErrorKind::PermissionDenied, 2));
    assert!(error.to_string().contains("expired"), "{error}");
}

use super::*;
use crate::error::ErrorKind;
use crate::options::RemoteOptions;
use crate::source::Cancellation;
use crate::test_server::{Server, TestRequest, TestResponse};
use reqsign_core::time::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tempfile::TempDir;

fn client(env: &[(&str, &str)]) -> Arc<Client> {
    Client::new(RemoteOptions::with_variables(env))
}

fn get(client: &Arc<Client>, credentials: &Arc<AwsCredentials>) -> Result<AwsCredential> {
    let (asking, credentials) = (Arc::clone(client), Arc::clone(credentials));
    client.block_on(&Cancellation::new(), async move { super::get(&credentials, &asking).await })
}

/// The credentials found with this environment.
fn found(env: &[(&str, &str)]) -> Result<AwsCredential> {
    get(&client(env), &Arc::default())
}

#[test]
fn credentials_of_the_caller_take_precedence_over_the_environment_and_are_not_in_debug() {
    let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "other")];
    let given = crate::options::S3Credentials {
        access_key_id: "GIVEN".to_owned(),
        secret_access_key: "s3cret".to_owned(),
        session_token: Some("t0ken".to_owned()),
    };
    let debug = format!("{given:?}");
    assert!(debug.contains("GIVEN") && !debug.contains("s3cret") && !debug.contains("t0ken"));
    let s3_credentials = Some(given);
    let options = RemoteOptions { s3_credentials, ..RemoteOptions::with_variables(&keys) };
    let credential = get(&Client::new(options), &Arc::default()).unwrap();
    assert_eq!((&*credential.access_key_id, &*credential.secret_access_key), ("GIVEN", "s3cret"));
    assert_eq!((credential.session_token.as_deref(), credential.expires), (Some("t0ken"), None));
}

/// A home directory with this `~/.aws/config`.
fn home(config: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    home
}

fn json(id: &str, expiration: &str) -> String {
    format!(
        "{{\"Code\": \"Success\", \"AccessKeyId\": \"{id}\", \"SecretAccessKey\": \"s3cret\", \
         \"Token\": \"tok\", \"Expiration\": \"{expiration}\"}}"
    )
}

const LATER: &str = "2099-01-01T00:00:00Z";

fn ok(body: String) -> TestResponse {
    TestResponse::new(200, body)
}

fn refused(status: u16) -> TestResponse {
    TestResponse::new(status, "")
}

/// IMDSv2, which answers only requests with a token.
fn imds(request: &TestRequest) -> TestResponse {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let has_token = request.header("x-aws-ec2-metadata-token") == "the-token";
    match request.line.split_once(' ').unwrap() {
        ("PUT", "/latest/api/token") => {
            match request.header("x-aws-ec2-metadata-token-ttl-seconds").parse::<u32>() {
                Ok(1..=21600) => ok("the-token".to_owned()),
                _ => refused(400),
            }
        }
        (_, _) if !has_token => refused(401),
        ("GET", ROLES) => ok("the-role\n".to_owned()),
        ("GET", path) if path.strip_prefix(ROLES) == Some("the-role") => ok(json("AKIA", LATER)),
        _ => refused(404),
    }
}

#[test]
fn instances_are_asked_with_a_token() {
    let server = Server::start(imds);
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url());
    let endpoint = (endpoint.0, endpoint.1.as_str());
    let credential = found(&[endpoint]).unwrap();
    assert_eq!(credential.access_key_id, "AKIA");
    assert_eq!(credential.session_token.as_deref(), Some("tok"));
    assert!(credential.expires > Some(Timestamp::now()));
    assert_eq!(server.requests().len(), 3);

    let disabled = found(&[endpoint, ("AWS_EC2_METADATA_DISABLED", "true")]).unwrap_err();
    assert!(disabled.to_string().contains("AWS_EC2_METADATA_DISABLED"), "{disabled}");
    assert_eq!(server.requests().len(), 3, "no server was contacted");
}

#[test]
fn an_instance_without_a_role_is_a_place_without_credentials() {
    let server = Server::start(|request| match request.line.starts_with("PUT ") {
        true => ok("the-token".to_owned()),
        false => refused(404),
    });
    let error = found(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.url())]).unwrap_err();
    assert!(error.to_string().contains("the instance has no role"), "{error}");
}

#[test]
fn an_unsuccessful_search_lists_the_places_soon() {
    // Accepts, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let env = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("HOME", "/nonexistent")];
    let (client, credentials) = (client(&env), Arc::default());
    let error = get(&client, &credentials).unwrap_err();
    let took = began.elapsed();
    // Other requests wait this long for their response.
    assert!(took < client.options.retries.first_byte, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for place in [
        "AWS_ACCESS_KEY_ID is not set",
        "\"default\" in ~/.aws/config (not there) and ~/.aws/credentials (not there)",
        "AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
        "EC2 instance metadata (no answer from",
        "AWS_NO_SIGN_REQUEST=true",
    ] {
        assert!(error.to_string().contains(place), "{place}: {error}");
    }
    silent.set_nonblocking(true).unwrap();
    while silent.accept().is_ok() {}
    assert_eq!(get(&client, &credentials).unwrap_err().to_string(), error.to_string());
    assert!(silent.accept().is_err(), "a failure stands for a while");
}

#[test]
fn containers_are_asked_with_the_current_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let server =
        Server::start(|request| match (request.line.as_str(), request.header("authorization")) {
            ("GET /v1/credentials", "first") => ok(json("ONE", LATER)),
            ("GET /v1/credentials", "second") => ok(json("TWO", LATER)),
            _ => refused(401),
        });
    let url = format!("{}/v1/credentials", server.url());
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str());
    let env = [uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap())];
    let (client, credentials) = (client(&env), Arc::<AwsCredentials>::default());
    assert_eq!(get(&client, &credentials).unwrap().access_key_id, "ONE");
    std::fs::write(&file, "second").unwrap();
    assert_eq!(get(&client, &credentials).unwrap().access_key_id, "ONE", "kept");
    credentials.invalidate();
    assert_eq!(get(&client, &credentials).unwrap().access_key_id, "TWO");
    credentials.invalidate();
    assert_eq!(get(&client, &credentials).unwrap().access_key_id, "TWO");
    assert_eq!(server.requests().len(), 2, "refusals from before a renewal do not renew again");

    let with_token = found(&[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "second")]).unwrap();
    assert_eq!(with_token.access_key_id, "TWO");
    let error = found(&[uri]).unwrap_err();
    assert!(error.to_string().contains("answered 401"), "{error}");
}

#[test]
fn one_search_serves_all_threads() {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let server = Server::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ok(json("ONE", LATER))
    });
    let client = client(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &server.url())]);
    let credentials = Arc::<AwsCredentials>::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| get(&client, &credentials).unwrap());
        }
    });
    assert_eq!(times.load(Ordering::Relaxed), 1);
}

/// STS: credentials are named after the role.
fn sts(request: &TestRequest) -> TestResponse {
    let get = |name: &str| {
        let pairs = request.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let (Some(action), Some(arn)) = (get("Action"), get("RoleArn")) else {
        return refused(400);
    };
    let allowed = match action.as_str() {
        "AssumeRoleWithWebIdentity" => get("WebIdentityToken").as_deref() == Some("the-token"),
        "AssumeRole" => request.header("authorization").contains("/sts/aws4_request"),
        _ => false,
    };
    if !allowed || get("RoleSessionName").is_none() || get("Version").is_none() {
        let text = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not allowed\
                    </Message></Error></ErrorResponse>";
        return TestResponse::new(403, text);
    }
    ok(format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>KEY-{arn}</AccessKeyId>\
         <SecretAccessKey>s3cret</SecretAccessKey><SessionToken>tok-{arn}</SessionToken>\
         <Expiration>{LATER}</Expiration></Credentials></{action}Result></{action}Response>"
    ))
}

#[test]
fn chained_roles_are_assumed_one_from_the_other() {
    let server = Server::start(sts);
    let home = home(
        "[profile a]\nrole_arn = A\nsource_profile = b\nexternal_id = x/y\nregion = eu-west-1\n\
         [profile b]\nrole_arn = B\nsource_profile = c\nrole_session_name = me\n\
         [profile c]\naws_access_key_id = BASE\naws_secret_access_key = s3cret\n",
    );
    let server_url = server.url();
    let home = home.path().to_str().unwrap();
    let credential =
        found(&[("HOME", home), ("AWS_PROFILE", "a"), ("AWS_ENDPOINT_URL_STS", &server_url)])
            .unwrap();
    assert_eq!(credential.access_key_id, "KEY-A");
    assert_eq!(credential.session_token.as_deref(), Some("tok-A"));
    let requests = server.requests();
    let [first, second] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(first.body.contains("&RoleArn=B&RoleSessionName=me"), "{first:?}");
    assert!(first.header("authorization").contains("Credential=BASE/"), "{first:?}");
    assert!(second.body.contains("&ExternalId=x%2Fy"), "{second:?}");
    let by = second.header("authorization");
    assert!(by.contains("Credential=KEY-B/") && by.contains("/eu-west-1/sts/"), "{by}");
    assert_eq!(second.header("x-amz-security-token"), "tok-B");
}

#[test]
fn web_identities_come_from_environment_or_profile() {
    let server = Server::start(sts);
    let directory = home("");
    let token = directory.path().join("token");
    std::fs::write(&token, "the-token\n").unwrap();
    let (url, token) = (server.url(), token.to_str().unwrap());
    let sts = ("AWS_ENDPOINT_URL_STS", url.as_str());
    let arn = ("AWS_ROLE_ARN", "R");
    let credential = found(&[sts, arn, ("AWS_WEB_IDENTITY_TOKEN_FILE", token)]).unwrap();
    assert_eq!(credential.access_key_id, "KEY-R");
    assert_eq!(server.requests()[0].header("authorization"), "");

    let config = format!("[default]\nrole_arn = P\nweb_identity_token_file = {token}\n");
    let by_profile = home(&config);
    let home = ("HOME", by_profile.path().to_str().unwrap());
    assert_eq!(found(&[sts, home]).unwrap().access_key_id, "KEY-P");

    std::fs::write(token, "wrong-s3cret").unwrap();
    let error = found(&[sts, home]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(
        "role P cannot be assumed: the server answered 403 Forbidden (AccessDenied: Not allowed)"
    ));
    assert!(!error.to_string().contains("s3cret"), "{error}");
    let missing = found(&[sts, arn, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/none")]).unwrap_err();
    assert!(missing.to_string().contains("/none"), "{missing}");
}

#[test]
fn sts_is_asked_by_its_own_clock() {
    let server = Server::start(|request| match request.header("x-amz-date").starts_with("2030") {
        true => sts(request),
        false => refused(403).with("Date", "Tue, 01 Jan 2030 12:00:00 GMT"),
    });
    let home = home(
        "[default]\nrole_arn=A\nsource_profile=default\naws_access_key_id=B\n\
                     aws_secret_access_key=s3cret\n",
    );
    let home = home.path().to_str().unwrap();
    let env = [("HOME", home), ("AWS_ENDPOINT_URL_STS", &server.url())];
    assert_eq!(found(&env).unwrap().access_key_id, "KEY-A");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn logins_are_taken_from_the_cache() {
    let server = Server::start(|request| {
        let line = "GET /federation/credentials?role_name=Reader&account_id=123";
        if request.line != line || request.header("x-amz-sso_bearer_token") != "the-token" {
            return refused(401);
        }
        ok("{\"roleCredentials\": {\"accessKeyId\": \"SSO\", \"secretAccessKey\": \"s3cret\", \
            \"sessionToken\": \"tok\", \"expiration\": 4070908800000}}"
            .to_owned())
    });
    let home = home(
        "[profile session]\nsso_session = work\nsso_account_id = 123\nsso_role_name = Reader\n\
         [sso-session work]\nsso_region = eu-west-1\nsso_start_url = https://x/start\n\
         [profile legacy]\nsso_start_url = https://y/start\nsso_region = eu-west-1\n\
         sso_account_id = 123\nsso_role_name = Reader\n",
    );
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let server_url = server.url();
    let find = |profile: &str| {
        let home = ("HOME", home.path().to_str().unwrap());
        found(&[home, ("AWS_PROFILE", profile), ("AWS_ENDPOINT_URL_SSO", &server_url)])
    };
    // The SHA-1 of "work" and of "https://y/start".
    for (profile, sum) in [
        ("session", "e274eeff768c6396088ec6eb091f4bf4d47ab1e0"),
        ("legacy", "30c927ecc8d8349bdcfe657abfc19de9afe86ad8"),
    ] {
        let error = find(profile).unwrap_err();
        let remedy = format!("'aws sso login --profile {profile}'");
        assert!(error.to_string().contains(&remedy), "{error}");
        let file = cache.join(format!("{sum}.json"));
        let token =
            |at: &str| format!("{{\"accessToken\": \"the-token\", \"expiresAt\": \"{at}\"}}");
        std::fs::write(&file, token("2020-01-01T00:00:00UTC")).unwrap();
        assert!(find(profile).unwrap_err().to_string().contains("has expired"));
        std::fs::write(&file, token(LATER)).unwrap();
        assert_eq!(find(profile).unwrap().access_key_id, "SSO", "{profile}");
    }
}

#[test]
fn the_first_source_that_is_configured_decides() {
    let server = Server::start(imds);
    let server_url = server.url();
    let home = home(
        "[default]\nrole_arn=A\ncredential_source=EcsContainer\n\
                     [profile process]\ncredential_process = echo '{\"Version\": 1, \
                     \"AccessKeyId\": \"PROC\", \"SecretAccessKey\": \"s3cret\"}'\n\
                     [profile broken]\ncredential_process = echo s3cret\n",
    );
    let home = ("HOME", home.path().to_str().unwrap());
    let instance = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server_url.as_str());
    let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];
    assert_eq!(found(&[keys[0], keys[1], home, instance]).unwrap().access_key_id, "ENV");
    let process = [home, instance, ("AWS_PROFILE", "process")];
    assert_eq!(found(&process).unwrap().access_key_id, "PROC");
    for (profile, words) in [
        ("default", "takes its credentials from containers"),
        ("none", "no profile \"none\""),
        ("broken", "the credential_process did not return credentials"),
    ] {
        let error = found(&[home, instance, ("AWS_PROFILE", profile)]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    assert!(server.requests().is_empty(), "no other account is used in their place");
}

#[test]
fn secrets_are_not_in_debug() {
    let credential = AwsCredential {
        access_key_id: "AKIA".into(),
        secret_access_key: "s3cret".into(),
        session_token: Some("s3cret".into()),
        expires: None,
    };
    let text = format!("{credential:?}");
    assert!(!text.contains("s3cret") && !text.contains("AKIA"), "{text}");
}

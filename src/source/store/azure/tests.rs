//! All forms of accounts, URLs, all sources of tokens with emulated servers, and listings of several
//! pages.

use super::*;
use crate::error::ErrorKind;
use crate::location::Scheme;
use crate::source::Cancellation;
use crate::source::store::Stores;
use crate::test_server::{Server, TestRequest};
use http::Request;

const ACCOUNT: (&str, &str) = ("AZURE_STORAGE_ACCOUNT_NAME", "acc");

fn blob() -> ObjectUri {
    ObjectUri::new(Scheme::Az, "box", "m/x.safetensors")
}

fn azure(variables: &[(&str, &str)]) -> Result<Azure> {
    Azure::new(&RemoteOptions::with_variables(variables), &blob())
}

/// URL and secret for `variables`.
fn described(variables: &[(&str, &str)]) -> (String, Option<Secret>) {
    let azure = azure(variables).unwrap();
    (azure.url("m/a b").unwrap().to_string(), azure.account.secret)
}

/// The `Authorization` header of a request with `variables`, and how it was authorized.
fn authorized(variables: &[(&str, &str)]) -> Result<(Option<String>, Authorization)> {
    let client = Client::new(RemoteOptions::with_variables(variables));
    let azure = azure(variables)?;
    client.clone().block_on(&Cancellation::new(), async move {
        let (mut head, ()) = Request::new(()).into_parts();
        azure.authorize(&client, &mut head, SystemTime::now()).await?;
        assert!(head.headers.contains_key("x-ms-version"));
        let value = head.headers.get(header::AUTHORIZATION);
        Ok((value.map(|value| value.to_str().unwrap().to_owned()), azure.authorization()))
    })
}

#[test]
fn accounts_are_described_in_many_ways() {
    let key = Some(Secret::Key(b"key".to_vec()));
    let sas = Some(Secret::Sas("sv=1&sig=a%3D".to_owned()));
    let usual = "https://acc.blob.core.windows.net/box/m/a%20b";
    let string = |text| [("AZURE_STORAGE_CONNECTION_STRING", text)];
    assert_eq!(described(&[ACCOUNT]), (usual.to_owned(), None));
    let with_key = [("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_KEY", "a2V5")];
    assert_eq!(described(&with_key), (usual.to_owned(), key.clone()));
    let with_sas = [ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=a%3D")];
    assert_eq!(described(&with_sas), (usual.to_owned(), sas.clone()));
    let full = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5;\
        EndpointSuffix=core.chinacloudapi.cn";
    let china = "https://acc.blob.core.chinacloudapi.cn/box/m/a%20b";
    assert_eq!(described(&string(full)), (china.to_owned(), key.clone()));
    let signed =
        "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=a%3D";
    assert_eq!(described(&string(signed)), (usual.to_owned(), sas.clone()));
    let both = [string(signed)[0], ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")];
    assert_eq!(described(&both).1, sas);
    let (url, secret) = described(&string("UseDevelopmentStorage=true"));
    assert_eq!(url, "http://127.0.0.1:10000/devstoreaccount1/box/m/a%20b");
    assert!(matches!(secret, Some(Secret::Key(key)) if key.len() == 64));
    let emulator = [ACCOUNT, ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:5/")];
    assert_eq!(described(&emulator).0, "http://127.0.0.1:5/acc/box/m/a%20b");
    let named = [("AZURE_ENDPOINT_URL", "http://127.0.0.1:5/devstoreaccount1")];
    assert_eq!(described(&named).0, "http://127.0.0.1:5/devstoreaccount1/box/m/a%20b");
    let own = [ACCOUNT, ("AZURE_STORAGE_ENDPOINT", "https://blobs.example.org")];
    assert_eq!(described(&own).0, "https://blobs.example.org/box/m/a%20b");
}

#[test]
fn errors_do_not_repeat_the_secret() {
    for (variables, words) in [
        (vec![], "AZURE_STORAGE_ACCOUNT_NAME"),
        (vec![ACCOUNT, ("AZURE_STORAGE_ACCOUNT_KEY", "s3cret!")], "AZURE_STORAGE_ACCOUNT_KEY"),
        (vec![("AZURE_STORAGE_CONNECTION_STRING", "s3cret")], "Name=value"),
        (vec![("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=s3cret!")], "Base64"),
        (vec![ACCOUNT, ("AZURE_STORAGE_ENDPOINT", "s3cret")], "not a URL"),
        (vec![("AZURE_STORAGE_ACCOUNT", "a b")], "not a URL"),
    ] {
        let error = azure(&variables).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    assert_eq!(azure(&[ACCOUNT]).unwrap().url("").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_signature_is_added_to_the_query() {
    let client = Client::new(RemoteOptions::with_variables(&[]));
    let azure = azure(&[ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=a%3D")]).unwrap();
    let uris = client.clone().block_on(&Cancellation::new(), async move {
        let mut uris = Vec::new();
        for uri in [azure.url("x")?, azure.page_url("m/", ListDepth::Directory, Some("2!"))?] {
            let (mut head, ()) = Request::get(uri).body(()).unwrap().into_parts();
            azure.authorize(&client, &mut head, SystemTime::now()).await?;
            uris.push(head.uri.to_string());
        }
        Ok(uris)
    });
    let base = "https://acc.blob.core.windows.net/box";
    let listing = "restype=container&comp=list&delimiter=%2F&prefix=m%2F&marker=2%21";
    assert_eq!(
        uris.unwrap(),
        [format!("{base}/x?sv=1&sig=a%3D"), format!("{base}?{listing}&sv=1&sig=a%3D")]
    );
}

const TOKEN: &str =
    r#"{"access_token": "granted", "expires_in": 3599, "expires_on": "4102444800"}"#;

#[test]
fn workload_identity_and_a_client_s_secret_give_tokens() {
    let server = Server::start(|request: &TestRequest| {
        let here = request.line == "POST /my-tenant/oauth2/v2.0/token";
        let scope = request.body.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
        let client = request.body.contains("client_id=my-client");
        let proof = request.body.contains("client_assertion=of-the-pod")
            || request.body.contains("client_secret=of-the-client");
        match here && scope && client && proof {
            true => (200, TOKEN.to_owned()),
            false => (401, r#"{"error": "invalid_client"}"#.to_owned()),
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "of-the-pod\n").unwrap();
    let authority = format!("{}/", server.url());
    let common = [
        ACCOUNT,
        ("AZURE_TENANT_ID", "my-tenant"),
        ("AZURE_CLIENT_ID", "my-client"),
        ("AZURE_AUTHORITY_HOST", authority.as_str()),
    ];
    for (name, value) in [
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ("AZURE_CLIENT_SECRET", "of-the-client"),
    ] {
        let variables = [&common[..], &[(name, value)]].concat();
        let (authorization, using) = authorized(&variables).unwrap();
        assert_eq!(authorization.unwrap(), "Bearer granted");
        assert_eq!(using, Authorization::Token);
    }
    for (name, value) in
        [("AZURE_FEDERATED_TOKEN_FILE", "/nowhere"), ("AZURE_CLIENT_SECRET", "s3cret")]
    {
        let variables = [&common[..], &[(name, value)]].concat();
        let error = authorized(&variables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn managed_identity_is_asked_as_its_servers_want() {
    let server = Server::start(|request: &TestRequest| {
        let resource = request.line.contains("resource=https%3A%2F%2Fstorage.azure.com%2F");
        let machine =
            request.line.starts_with("GET /metadata/identity/oauth2/token?api-version=2018-02-01")
                && request.header("metadata") == "true";
        let service = request.line.starts_with("GET /msi/token?api-version=2019-08-01")
            && request.header("x-identity-header") == "of-the-service";
        match resource && (machine || service) {
            true => (200, TOKEN.to_owned()),
            false => (400, String::new()),
        }
    });
    let host = server.url();
    let machine = [ACCOUNT, ("AZURE_POD_IDENTITY_AUTHORITY_HOST", host.as_str())];
    assert_eq!(authorized(&machine).unwrap().0.unwrap(), "Bearer granted");
    let endpoint = format!("{host}/msi/token");
    let service =
        [ACCOUNT, ("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "of-the-service")];
    assert_eq!(authorized(&service).unwrap().0.unwrap(), "Bearer granted");
    let wrong = [ACCOUNT, ("IDENTITY_ENDPOINT", endpoint.as_str())];
    let error = authorized(&wrong).unwrap_err();
    assert!(error.to_string().contains("IDENTITY_ENDPOINT"), "{error}");
}

#[test]
fn without_credentials_requests_go_without() {
    let server = Server::start(|_: &TestRequest| (404, String::new()));
    let host = server.url();
    let (authorization, using) =
        authorized(&[ACCOUNT, ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &host)]).unwrap();
    assert_eq!(authorization, None);
    let Authorization::Nothing(places) = using else { panic!("{using:?}") };
    for place in ["AZURE_STORAGE_ACCOUNT_KEY", "IDENTITY_ENDPOINT", "metadata server"] {
        assert!(places.contains(place), "{places}");
    }
    // No token goes to a server without TLS; none is looked for.
    let plain = [ACCOUNT, ("AZURE_STORAGE_ENDPOINT", host.as_str()), ("AZURE_CLIENT_SECRET", "s")];
    assert!(
        matches!(authorized(&plain).unwrap(), (None, Authorization::Nothing(why)) if why.contains("TLS"))
    );
    let chosen = [ACCOUNT, ("AZURE_STORAGE_KEY", "a2V5"), (ANONYMOUS, "1")];
    assert!(
        matches!(authorized(&chosen).unwrap(), (None, Authorization::Nothing(why)) if why.contains("ANON"))
    );
}

#[test]
fn listings_are_read_to_their_end() {
    let page = |names: &[&str], marker: &str| {
        let blobs: String =
            names.iter().map(|name| format!("<Blob><Name>{name}</Name></Blob>")).collect();
        let text = format!("<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker>");
        format!("<?xml version=\"1.0\"?><EnumerationResults>{text}</EnumerationResults>")
    };
    let server =
        Server::start(move |request: &TestRequest| match request.line.contains("&marker=two%21") {
            false => (200, page(&["m/", "m/1.safetensors"], "two!")),
            true => (200, page(&["m/2&amp;.safetensors"], "")),
        });
    let host = server.url();
    let variables = [ACCOUNT, ("AZURE_STORAGE_ENDPOINT", host.as_str())];
    let client = Client::new(RemoteOptions::with_variables(&variables));
    let names = client.clone().block_on(&Cancellation::new(), async move {
        let store = Stores::default().of(&client, &blob())?;
        store.list(&client, "m/").await
    });
    assert_eq!(names.unwrap().unwrap(), ["1.safetensors", "2&.safetensors"]);
    assert!(server.requests()[0].line.starts_with("GET /acc/box?restype=container&comp=list"));
}

#[test]
fn a_wrong_clock_is_corrected_once() {
    let too_old = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code>\
        <AuthenticationErrorDetail>Request date header too old: 'then'</AuthenticationErrorDetail></Error>";
    let server = Server::start(move |_: &TestRequest| (403, too_old.to_owned()));
    let host = server.url();
    let variables =
        [ACCOUNT, ("AZURE_STORAGE_ENDPOINT", host.as_str()), ("AZURE_STORAGE_KEY", "a2V5")];
    let client = Client::new(RemoteOptions::with_variables(&variables));
    let outcome = client.clone().block_on(&Cancellation::new(), async move {
        let store = Stores::default().of(&client, &blob())?;
        store.list(&client, "m/").await
    });
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

//! Web servers: a real nginx over HTTP and TLS, with passwords, and behind a proxy.
//!
//! Hazards: an object that is replaced while it is read; a server that ignores ranges, or whose
//! certificate is not trusted; secrets in messages and logs.

use crate::common::command::{Finished, digest_lines, ringload, run};
use crate::common::nginx::Nginx;
use crate::common::proxy::Proxy;
use crate::common::seccomp::{self, Refuse, can_filter};
use crate::common::servers::free_port;
use crate::common::{Expected, directory, write, write_index};
use ringload::{ErrorKind, Loader};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Two shards, the first one of several ranges.
fn shards() -> [Vec<Expected>; 2] {
    let first =
        vec![Expected::of_bytes("a", 20 << 20, 1), Expected::of_bytes("b", (3 << 20) + 7, 2)];
    [first, vec![Expected::of_bytes("c", 100_003, 3), Expected::of_bytes("d", 0, 4)]]
}

/// Puts the shards and their index into `root`.
fn put(root: &Path) {
    let shards = shards();
    let names = ["1.safetensors", "2.safetensors"];
    for (name, tensors) in names.iter().zip(&shards) {
        write(&root.join(name), tensors, None);
    }
    let named = names.into_iter().zip(shards.iter().map(Vec::as_slice));
    write_index(&root.join("model.safetensors.index.json"), named);
}

/// The command in an environment without anything that a machine may have set.
fn command(subcommand: &str) -> Command {
    let mut command = ringload();
    command.env_clear().arg(subcommand);
    command
}

/// Runs `load --digest` of `url`, with `change` made to the command.
fn load(url: &str, change: impl FnOnce(&mut Command)) -> Finished {
    let mut command = command("load");
    command.args(["--digest", url]);
    change(&mut command);
    run(&mut command)
}

#[track_caller]
fn assert_loads(url: &str, change: impl FnOnce(&mut Command)) {
    let expected = shards();
    assert_eq!(load(url, change).quiet_success(), digest_lines(expected.iter().flatten()));
}

/// The outcome with everything logged that can be; none of `secrets` in it.
#[track_caller]
fn load_loudly(url: &str, secrets: &[&str], change: impl FnOnce(&mut Command)) -> Finished {
    let finished = load(url, |command| change(command.arg("-vvv")));
    for secret in secrets {
        let told = [&finished.stdout, &finished.stderr].iter().any(|text| text.contains(secret));
        assert!(!told, "{secret:?} is told:\n{finished:#?}");
    }
    finished
}

/// How many attempts a load that fails makes.
fn attempts(url: &str) -> usize {
    load_loudly(url, &[], |_| {}).stderr.matches("an attempt failed").count()
}

#[test]
fn checkpoints_load_in_ranges_of_the_objects_that_were_opened() {
    let Some(nginx) = Nginx::start("", put) else { return };
    assert_loads(&nginx.url(""), |_| {});
    assert_loads(&nginx.url("model.safetensors.index.json"), |_| {});
    assert_loads(&nginx.url(""), |command| {
        command.args(["--memory-limit", "min", "--connections", "3"]);
    });
    let log = nginx.log();
    let shard = log.iter().filter(|line| line.starts_with("GET /1.safetensors")).count();
    assert!(shard > 3 * 2, "not in ranges: {log:#?}");
    for line in log.iter().filter(|line| line.contains(".safetensors ")) {
        let first = line.contains("[bytes=0-65535]");
        assert!(line.contains(" 206 ") && (first || line.contains("[\"")), "{line}");
    }
}

/// On io_uring the kernel puts bodies into their slots; without it the runtime does.
#[test]
fn without_io_uring_bodies_come_through_the_runtime() {
    let Some(nginx) = Nginx::start("", put) else { return };
    if !can_filter() {
        return;
    }
    for errno in [libc::EPERM, libc::ENOSYS] {
        assert_loads(&nginx.url(""), |command| {
            seccomp::refuse(command.args(["--memory-limit", "min"]), &[Refuse::io_uring(errno)]);
        });
    }
}

#[test]
fn inspecting_takes_one_small_request_a_shard() {
    let Some(nginx) = Nginx::start("", put) else { return };
    let url = nginx.url("");
    let seen = run(command("inspect").args(["--json", &url])).json();
    assert_eq!(seen["tensors"].as_array().unwrap().len(), 4);
    let mut targets: Vec<_> =
        nginx.log().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    targets.sort();
    assert_eq!(targets, ["/1.safetensors", "/2.safetensors", "/model.safetensors.index.json"]);
}

/// Makes certificates in `directory`. False where there is no nginx to use them.
pub fn certify(directory: &Path) -> bool {
    if crate::common::servers::nginx().is_none() {
        return false;
    }
    crate::common::certificates::make(directory);
    true
}

/// nginx with the certificate in `certificates`.
pub fn start_tls(certificates: &Path, protocols: &str) -> Option<Nginx> {
    let certificates = certificates.display();
    let body = format!(
        "ssl_certificate {certificates}/server.pem;\nssl_certificate_key {certificates}/server.key;\n\
         ssl_protocols {protocols};"
    );
    Nginx::listening("127.0.0.1:{port} ssl", &body, put)
}

#[test]
fn tls_needs_an_authority_that_vouches() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let Some(nginx) = start_tls(certificates.path(), protocols) else { return };
        let url = nginx.url("").replace("http:", "https:");
        assert_loads(&url, |command| {
            command.env("SSL_CERT_FILE", certificates.path().join("ca.pem"));
        });
        let report = load(&url, |_| {}).failure();
        assert!(report.contains("is not trusted"), "{report}");
        assert!(report.contains("SSL_CERT_FILE"), "{report}");
        assert_eq!(attempts(&url), 1);
    }
}

/// `openssl req -x509` makes a certificate that is its own authority, as every tutorial shows. curl and
/// Python accept it from the file that they are given; ringload refused it, with a remedy that could
/// not work.
#[test]
fn a_server_s_own_certificate_is_trusted_from_a_named_file_only() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout server.key \
            -out server.pem
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout other.key \
            -out other.pem";
    let mut openssl = Command::new("sh");
    let made = openssl.args(["-ec", script]).current_dir(certificates.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let Some(nginx) = start_tls(certificates.path(), "TLSv1.2 TLSv1.3") else { return };
    let url = nginx.url("").replace("http:", "https:");
    let with = |variable: &'static str, file: &str| {
        let file = certificates.path().join(file);
        move |command: &mut Command| {
            command.env(variable, file);
        }
    };
    assert_loads(&url, with("SSL_CERT_FILE", "server.pem"));
    assert_loads(&url, with("AWS_CA_BUNDLE", "server.pem"));
    assert_loads(&url, with("REQUESTS_CA_BUNDLE", "server.pem"));
    assert_loads(&url, with("CURL_CA_BUNDLE", "server.pem"));
    // Another certificate of the same name, and another name for the same certificate.
    for (url, file) in
        [(url.clone(), "other.pem"), (url.replace("127.0.0.1", "localhost"), "server.pem")]
    {
        let refused = load(&url, with("SSL_CERT_FILE", file)).failure();
        assert!(refused.contains("is not trusted"), "{refused}");
    }
}

#[test]
fn an_object_that_is_replaced_is_never_mixed() {
    let Some(nginx) = Nginx::start("", put) else { return };
    let path = nginx.root().join("1.safetensors");
    let url = nginx.url("1.safetensors");
    let [tensors, _] = shards();
    let replacements: [(&str, &dyn Fn()); 2] = [
        ("by one of the same length", &|| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(100)).unwrap();
        }),
        ("by a shorter one", &|| write(&path, &tensors[1..], None)),
    ];
    for (how, replace) in replacements {
        let loader = Loader::new();
        let checkpoint = Arc::new(loader.open(&url).unwrap());
        replace();
        let error = loader.load_checkpoint(checkpoint).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{how}: {error}");
        assert!(error.to_string().contains("1.safetensors was replaced"), "{how}: {error}");
    }
    assert!(nginx.log().iter().any(|line| line.contains(" 412 ")), "{:#?}", nginx.log());
}

#[test]
fn passwords_and_headers_open_what_is_locked_and_are_not_told() {
    let body = "auth_basic locked;\nauth_basic_user_file {dir}/root/users;";
    let started = Nginx::start(body, |root| {
        put(root);
        fs::write(root.join("users"), "us er:{PLAIN}s3cret/x@\n").unwrap();
    });
    let Some(nginx) = started else { return };
    let basic = "dXMgZXI6czNjcmV0L3hA";
    let secrets = ["s3cret", basic, "us er", "us%20er"];
    let with_user =
        |user: &str| format!("{}?s3cret=1", nginx.url("").replace("://", &format!("://{user}@")));

    let url = with_user("us%20er:s3cret%2Fx%40");
    let by_url = load_loudly(&url, &secrets, |_| {});
    assert!(by_url.status.success(), "{by_url:#?}");
    let header = format!("Authorization: Basic {basic}");
    let by_header = load_loudly(&nginx.url(""), &secrets, |command| {
        command.args(["--header", &header]);
    });
    assert!(by_header.status.success(), "{by_header:#?}");

    for url in [with_user("us%20er:s3cret"), nginx.url("?s3cret")] {
        let refused = load_loudly(&url, &secrets, |_| {});
        refused.assert_no_panic();
        assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("401 Unauthorized"), "{refused:#?}");
    }
}

#[test]
fn redirects_are_followed_without_what_was_for_the_first_server() {
    let second = Nginx::start("location / { if ($http_authorization) { return 400; } }", put);
    let Some(second) = second else { return };
    let to = second.url("");
    let body = format!("location / {{ rewrite ^/(.*)$ {to}$1?Signature=s3cret redirect; }}");
    let first = Nginx::start(&body, |_| {});
    let Some(first) = first else { return };
    let finished = load_loudly(&first.url(""), &["s3cret"], |command| {
        command.args(["--header", "Authorization: Bearer s3cret"]);
    });
    assert_eq!(finished.stdout, digest_lines(shards().iter().flatten()), "{finished:#?}");
    assert!(first.log().iter().all(|line| line.contains("[Bearer s3cret]")));
    // Where a redirect led is asked directly from then on.
    let (first, second) = (first.log().len(), second.log().len());
    assert!(first <= 5 && second > first, "{first} {second}");
}

#[test]
fn what_cannot_be_read_is_refused_at_once() {
    let body = "location /whole/ { alias {dir}/root/; max_ranges 0; }";
    let started = Nginx::start(body, |root| {
        put(root);
        fs::write(root.join("x.safetensors"), vec![b'x'; 100_000]).unwrap();
        fs::write(root.join("empty.safetensors"), "").unwrap();
    });
    let Some(nginx) = started else { return };
    let closed = crate::common::servers::free_port();
    for (url, part) in [
        (nginx.url("whole/1.safetensors"), "ignores the Range header"),
        (nginx.url("none.safetensors"), "404 Not Found; check the location"),
        (nginx.url("none/"), "does not list it, and there is neither"),
        (nginx.url("x.safetensors"), "x.safetensors: "),
        (nginx.url("empty.safetensors"), "empty.safetensors: "),
        (nginx.url("users"), "404 Not Found"),
        (format!("http://127.0.0.1:{closed}/x"), "no connection to http://127.0.0.1"),
        ("http://nowhere.invalid/x".to_owned(), "the name of http://nowhere.invalid:80"),
        (nginx.url("").replace("http:", "https:"), "no TLS with"),
    ] {
        let report = load(&url, |_| {}).failure();
        assert!(report.contains(part), "{url}: {report}");
        let attempts = attempts(&url);
        assert!(attempts <= 4, "{url}: {attempts}");
    }
}

#[test]
fn proxies_of_the_environment_are_used() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    let Some(plain) = Nginx::start("", put) else { return };
    let Some(tls) = start_tls(certificates.path(), "TLSv1.3") else { return };
    let tls_url = tls.url("").replace("http:", "https:");
    let proxy = Proxy::start();
    let address = format!("http://u:p@127.0.0.1:{}", proxy.port);
    let authority = certificates.path().join("ca.pem");

    assert_loads(&plain.url(""), |command| {
        command.env("http_proxy", &address);
    });
    let of_plain = proxy.served();
    assert!(of_plain > 0);
    assert_loads(&tls_url, |command| {
        command.env("HTTPS_PROXY", &address).env("SSL_CERT_FILE", &authority);
    });
    let of_both = proxy.served();
    assert!(of_both > of_plain);

    assert_loads(&plain.url(""), |command| {
        command.env("http_proxy", &address).env("NO_PROXY", "localhost,127.0.0.1");
    });
    assert_loads(&plain.url(""), |command| {
        command.env("https_proxy", &address); // not for http
    });
    assert_eq!(proxy.served(), of_both);

    assert_loads(&plain.url(""), |command| {
        command.env("http_proxy", &address).env("NO_PROXY", "*");
    });
    assert_eq!(proxy.served(), of_both);

    // Users name hosts with their ports, as Python and Go programs take them.
    let port = plain.port();
    assert_loads(&plain.url(""), |command| {
        command.env("http_proxy", &address).env("NO_PROXY", format!("x:1, 127.0.0.1:{port}"));
    });
    assert_eq!(proxy.served(), of_both);
    assert_loads(&plain.url(""), |command| {
        command.env("http_proxy", &address).env("NO_PROXY", format!("127.0.0.1:1,7.0.0.1:{port}"));
    });
    let of_others = proxy.served();
    assert!(of_others > of_both);

    // A proxy that refuses connections is named, and not the server.
    let nobody = format!("http://u:s3cret@127.0.0.1:{}", free_port());
    for (name, url) in [("http_proxy", &plain.url("")), ("https_proxy", &tls_url)] {
        let refused = load_loudly(url, &["s3cret"], |command| {
            command.env(name, &nobody).env("SSL_CERT_FILE", &authority);
        });
        let proxy = nobody.rsplit_once('@').unwrap().1;
        let sentence = format!("the proxy {proxy} gives no connection to ");
        assert!(refused.stderr.contains(&sentence), "{refused:#?}");
    }

    let wrong = address.replace("u:p", "u:s3cret");
    for (name, url) in [("http_proxy", &plain.url("")), ("https_proxy", &tls_url)] {
        let refused = load_loudly(url, &["s3cret"], |command| {
            command.env(name, &wrong).env("SSL_CERT_FILE", &authority);
        });
        assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("proxy"), "{refused:#?}");
    }
    assert_eq!(proxy.served(), of_others);
}

/// `localhost` has two addresses on most machines, of which only one is listened on here.
#[test]
fn an_address_that_refuses_is_passed_over() {
    let Some(nginx) = Nginx::start("", put) else { return };
    assert_loads(&nginx.url("").replace("127.0.0.1", "localhost"), |_| {});
}

//! Environment variables of the command, and of programs that embed the library.
//!
//! The command set each of its flags that was not given to false, which hid `RINGLOAD_CACHE_SHARED`:
//! it had no effect, and a wrong value was no error. `RINGLOAD_LOG=garbage` turned off all of the log,
//! without a word. `--pin` and `--unpinned` had no variables. Every variable now counts where its flag
//! is not given, and a wrong value is reported with the name of the variable.

use crate::common::child::passes_in_a_child;
use crate::common::command::{Finished, ringload, run};
use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::model::Model;
use crate::common::{Expected, directory, write};
use ringload::{ErrorKind, Loader, RetryLimits};
use std::os::unix::fs::PermissionsExt;

/// A server of a checkpoint without any validator.
fn bare() -> FaultServer {
    let model = Model::new(&[100_000]);
    let file = model.file.clone();
    FaultServer::start(model.file, move |_, request: &Request| {
        let (first, last) = request.range().unwrap();
        let last = last.min(file.len() - 1);
        let range = format!("bytes {first}-{last}/{}", file.len());
        Reply::new(206).with("Content-Range", range).body(&file[first..=last])
    })
}

fn load(location: &str, options: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = ringload();
    run(command.args(["load", location]).args(options).envs(variables.iter().copied()))
}

#[test]
fn a_variable_counts_where_its_flag_is_not_given() {
    let server = bare();
    let url = server.url();
    assert!(load(&url, &[], &[]).failure().contains("--unpinned"));
    for variable in [("RINGLOAD_UNPINNED", "true"), ("RINGLOAD_PIN", "length")] {
        let loaded = load(&url, &[], &[variable]);
        assert!(loaded.status.success(), "{variable:?}: {loaded:#?}");
        assert!(loaded.stderr.contains("is pinned by its length alone"), "{loaded:#?}");
    }
    assert!(load(&url, &["--pin", "auto"], &[("RINGLOAD_PIN", "length")]).status.code() == Some(1));

    // A directory that others may write to is used only for a shared cache.
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = Model::new(&[100_000]).file;
    let server = FaultServer::start(file, |_, request| request.right());
    let cache_dir = [("RINGLOAD_CACHE_DIR", cache.path().to_str().unwrap())];
    let private = load(&server.url(), &[], &cache_dir);
    assert!(private.stderr.contains("--cache-shared"), "{private:#?}");
    let shared = load(&server.url(), &[], &[cache_dir[0], ("RINGLOAD_CACHE_SHARED", "yes")]);
    assert!(shared.status.success() && shared.stderr.is_empty(), "{shared:#?}");
}

#[test]
fn a_wrong_value_is_reported_with_its_variable() {
    let server = bare();
    let url = server.url();
    let cache = tempfile::tempdir().unwrap();
    let files = directory();
    let local = files.path().join("local.safetensors");
    write(&local, &[Expected::of_bytes("t", 10, 1)], None);
    let cache_dir = ("RINGLOAD_CACHE_DIR", cache.path().to_str().unwrap());
    for (name, value) in [
        ("RINGLOAD_MEMORY_LIMIT", "lots"),
        ("RUNAI_STREAMER_MEMORY_LIMIT", "1GiB"),
        ("RINGLOAD_CONCURRENCY", "4294967295"),
        ("RUNAI_STREAMER_CONCURRENCY", "many"),
        ("RINGLOAD_PIN", "time"),
        ("RINGLOAD_UNPINNED", "maybe"),
        ("RINGLOAD_CACHE_SHARED", "maybe"),
        ("RINGLOAD_CACHE_SIZE", "none"),
        ("RINGLOAD_CACHE_VALIDATE", "often"),
    ] {
        let unpinned: &[&str] = if name.ends_with("PINNED") { &[] } else { &["--unpinned"] };
        let refused = load(&url, unpinned, &[cache_dir, (name, value)]);
        assert_eq!(refused.status.code(), Some(1), "{name}: {refused:#?}");
        let (_, error) = refused.stderr.split_once("error: ").unwrap();
        assert!(error.contains(name) && error.contains(value), "{name}: {error}");
        // Loads of local files ignored wrong values of some variables, as long as there was no cache.
        let refused = load(local.to_str().unwrap(), &[], &[(name, value)]).failure();
        assert!(refused.contains(name) && refused.contains(value), "{name}: {refused}");
    }
    for (name, location) in [
        ("RINGLOAD_GCS_ANONYMOUS", "gs://bucket/x.safetensors"),
        ("RINGLOAD_AZURE_ANONYMOUS", "az://container/x.safetensors"),
    ] {
        let account = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
        let error = load(location, &[], &[account, (name, "maybe")]).failure();
        assert!(error.contains(name) && error.contains("\"maybe\" is not a flag"), "{error}");
    }
}

/// The log never fails a load.
#[test]
fn a_wrong_filter_of_the_log_is_reported_and_warnings_are_still_logged() {
    let server = bare();
    for wrong in ["garbage", "ringload=loud", "a=b=c"] {
        let loaded = load(&server.url(), &["--unpinned"], &[("RINGLOAD_LOG", wrong)]);
        assert!(loaded.status.success(), "{loaded:#?}");
        assert!(loaded.stderr.contains(&format!("RINGLOAD_LOG={wrong}: ")), "{loaded:#?}");
        assert!(loaded.stderr.contains("is pinned by"), "{loaded:#?}");
    }
    let quiet = load(&server.url(), &["--unpinned"], &[("RINGLOAD_LOG", "off")]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:#?}");
}

/// A server that embeds ringload inherited `RINGLOAD_MEMORY_LIMIT` and other variables, which were meant
/// for the command and for Run:ai's streamer on the same machine. They changed the loads of the server:
/// its memory, its threads, and a cache that it did not ask for. Now they change only the loader of a
/// program that asks for them. The proxy of the machine counts for both.
#[test]
fn an_embedding_program_is_changed_only_where_it_asks_for_variables() {
    let variables = [
        ("RINGLOAD_MEMORY_LIMIT", "1MiB"),
        ("RUNAI_STREAMER_MEMORY_LIMIT", "0"),
        ("RINGLOAD_CONCURRENCY", "9"),
        ("RINGLOAD_CACHE_DIR", "/nowhere/cache"),
        ("RINGLOAD_UNPINNED", "true"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("NO_PROXY", "127.0.0.1,localhost"),
    ];
    const NAME: &str =
        "environment::an_embedding_program_is_changed_only_where_it_asks_for_variables";
    if !passes_in_a_child(NAME, &variables) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, Model::new(&[400_000; 8]).file).unwrap();
    let limit = |loader: Loader| {
        let mut stream = loader.stream(path.as_path()).unwrap();
        stream.by_ref().for_each(|tensor| drop(tensor.unwrap()));
        (stream.summary().memory_limit_bytes, stream.summary().engines)
    };
    let (own, asked) = (limit(Loader::new()), limit(Loader::from_env()));
    assert_eq!((own.0, asked), (None, (Some(1 << 20), 9)));
    assert_ne!(own.1, 9, "the number of engines is chosen by the cores and the size of the load");
    assert_eq!(Loader::new().cache_directory().unwrap(), None);
    assert_eq!(Loader::from_env().cache_directory().unwrap().unwrap(), *"/nowhere/cache");

    let server = bare();
    let refused = Loader::new().open(server.url().as_str()).unwrap_err();
    assert!(refused.to_string().contains("unpinned"), "{refused}");
    Loader::from_env().no_cache().open(server.url().as_str()).unwrap();

    let mut once = RetryLimits::default();
    once.attempts = 1;
    for loader in [Loader::new(), Loader::from_env().no_cache()] {
        let error =
            loader.retry_limits(once).open("http://host.invalid/m.safetensors").unwrap_err();
        assert!(error.to_string().contains("proxy"), "{error}");
    }
}

/// As above, with wrong values: a variable that had no effect on a server is no error there.
#[test]
fn a_wrong_value_is_an_error_only_where_a_program_asks_for_variables() {
    let variables = [("RINGLOAD_MEMORY_LIMIT", "lots"), ("RINGLOAD_PIN", "time")];
    const NAME: &str =
        "environment::a_wrong_value_is_an_error_only_where_a_program_asks_for_variables";
    if !passes_in_a_child(NAME, &variables) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, Model::new(&[1000]).file).unwrap();
    assert_eq!(Loader::new().load(path.as_path()).unwrap().len(), 1);
    for (set, variable) in
        [(("pin", "auto"), "RINGLOAD_MEMORY_LIMIT"), (("memory_limit", "1MiB"), "RINGLOAD_PIN")]
    {
        let loader = Loader::from_env().set(set.0, set.1).unwrap();
        let error = loader.load(path.as_path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(variable), "{error}");
    }
}

/// The files of certificates of Python's requests and of curl: a loader of `from_env` trusts them, as those
/// programs on the machine do, and no other loader reads them. The first one that is set counts.
#[test]
fn certificates_of_other_programs_count_only_where_a_program_asks_for_variables() {
    const NAME: &str =
        "environment::certificates_of_other_programs_count_only_where_a_program_asks_for_variables";
    for (variables, named) in [
        (&[("REQUESTS_CA_BUNDLE", "/absent/a.pem"), ("CURL_CA_BUNDLE", "/absent/b.pem")][..], "a"),
        (&[("REQUESTS_CA_BUNDLE", ""), ("CURL_CA_BUNDLE", "/absent/b.pem")], "b"),
    ] {
        if !passes_in_a_child(NAME, &[variables, &[("RINGLOAD_TEST_NAMED", named)]].concat()) {
            continue;
        }
        let named = match std::env::var("RINGLOAD_TEST_NAMED").unwrap().as_str() {
            "a" => {
                "REQUESTS_CA_BUNDLE cannot be used: cannot read the file of certificates /absent/a.pem"
            }
            _ => {
                "CURL_CA_BUNDLE cannot be used: cannot read the file of certificates /absent/b.pem"
            }
        };
        let mut once = RetryLimits::default();
        once.attempts = 1;
        let failure = |loader: Loader| {
            let opened = loader.retry_limits(once).open("https://127.0.0.1:1/x.safetensors");
            opened.unwrap_err().to_string()
        };
        let (own, asked) = (failure(Loader::new()), failure(Loader::from_env()));
        assert!(asked.contains(named), "{asked}");
        assert!(!own.contains("CA_BUNDLE") && own.contains("127.0.0.1"), "{own}");
        return; // each child has its own variables
    }
}

//! An emulated Hugging Face Hub: one nginx that requires a token and redirects large files to another
//! one, which rejects requests with the token.

use crate::common::command::{Finished, digest_lines, ringload, run, sha256};
use crate::common::nginx::Nginx;
use crate::common::{Expected, directory, write, write_index};
use std::fs;
use std::path::Path;
use std::process::Command;

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const TOKEN: &str = "hf_s3cret";

fn tensors() -> Vec<Expected> {
    vec![Expected::of_bytes("a", 9 << 20, 1), Expected::of_bytes("b", 12_345, 2)]
}

/// The Hub and its CDN. The repository has a checkpoint, and in a directory one with an index.
fn servers() -> Option<(Nginx, Nginx)> {
    let refuse = "location / { if ($http_authorization) { return 400; } }";
    let cdn = Nginx::start(refuse, |root| {
        let sharded = root.join("sharded");
        fs::create_dir(&sharded).unwrap();
        for directory in [root, &sharded] {
            write(&directory.join("model.safetensors"), &tensors(), None);
        }
        let named = [("model.safetensors", &tensors()[..])];
        write_index(&sharded.join("model.safetensors.index.json"), named);
        write(&root.join("wrong.safetensors"), &tensors()[..1], None);
    })?;
    let to = cdn.url("");
    let sum = sha256(&fs::read(cdn.root().join("model.safetensors")).unwrap());
    let lfs = format!(r#""lfs":{{"oid":"{sum}","size":1,"pointerSize":1}}"#);
    let body = format!(
        r#"
        if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }}
        error_page 401 @unknown;
        location @unknown {{ add_header X-Error-Code RepoNotFound always; return 401; }}
        location = /api/models/owner/repo/revision/main {{ return 200 '{{"sha":"{COMMIT}"}}'; }}
        location = /api/models/owner/repo/tree/{COMMIT} {{
            return 200 '[{{"type":"file","path":"README.md"}},{{"type":"file","path":"model.safetensors",{lfs}}},
                {{"type":"file","path":"wrong.safetensors",{lfs}}}]';
        }}
        location = /api/models/owner/repo/tree/{COMMIT}/sharded {{
            return 200 '[{{"type":"file","path":"sharded/model.safetensors.index.json"}},
                {{"type":"file","path":"sharded/model.safetensors",{lfs}}}]';
        }}
        location /owner/repo/resolve/{COMMIT}/ {{
            rewrite ^/owner/repo/resolve/{COMMIT}/(.*)$ {to}$1?Signature=s3cret redirect;
        }}
        location / {{ add_header X-Error-Code EntryNotFound always; return 404; }}"#
    );
    let hub = Nginx::start(&body, |_| {})?;
    Some((hub, cdn))
}

/// Runs `load --digest -vvv` and checks that its output has no secret.
#[track_caller]
fn load(location: &str, home: &Path, change: impl FnOnce(&mut Command)) -> Finished {
    let mut command = ringload();
    command.env_clear().env("HOME", home).args(["load", "--digest", "-vvv", location]);
    change(&mut command);
    let finished = run(&mut command);
    finished.assert_no_panic();
    let has_secret =
        [&finished.stdout, &finished.stderr].iter().any(|text| text.contains("s3cret"));
    assert!(!has_secret, "{finished:#?}");
    finished
}

#[test]
fn files_are_read_from_the_target_of_redirects() {
    let Some((hub, cdn)) = servers() else { return };
    let home = directory();
    for location in [
        "hf://owner/repo/model.safetensors",
        "hf://owner/repo/model*",
        "hf://owner/repo@main/sharded",
    ] {
        let finished = load(location, home.path(), |command| {
            command.env("HF_ENDPOINT", hub.url("")).env("HF_TOKEN", TOKEN);
        });
        assert_eq!(finished.stdout, digest_lines(&tensors()), "{finished:#?}");
    }
    let (hub, cdn) = (hub.log(), cdn.log());
    assert!(hub.iter().all(|line| line.contains("[Bearer hf_s3cret]")), "{hub:#?}");
    assert!(cdn.iter().all(|line| line.contains(" 206 [] ")), "{cdn:#?}");
    // Only the first range is requested from the Hub.
    assert!(cdn.len() > hub.iter().filter(|line| line.contains("/resolve/")).count(), "{hub:#?}");
}

#[test]
fn bytes_are_verified_against_the_checksums_of_the_hub() {
    let Some((hub, _cdn)) = servers() else { return };
    let home = directory();
    let verified = |location: &str| {
        load(location, home.path(), |command| {
            command.arg("--verify").env("HF_ENDPOINT", hub.url("")).env("HF_TOKEN", TOKEN);
        })
    };
    for location in ["hf://owner/repo/model.safetensors", "hf://owner/repo/sharded"] {
        let finished = verified(location);
        assert_eq!(finished.stdout, digest_lines(&tensors()), "{finished:#?}");
    }
    let finished = verified("hf://owner/repo/wrong.safetensors");
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    let error = finished.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("hf://owner/repo/wrong.safetensors"), "{error}");
    assert!(error.contains("SHA-256"), "{error}");
}

#[test]
fn missing_files_are_distinguished_from_missing_access() {
    let Some((hub, _cdn)) = servers() else { return };
    let home = directory();
    for (location, token, part) in [
        ("hf://owner/repo", None, "set HF_TOKEN to a token"),
        ("hf://owner/repo", Some("hf_s3cret2"), "check that the account of the token"),
        ("hf://owner/repo/gone.safetensors", Some(TOKEN), "404 Not Found"),
        ("hf://owner/repo/gone/", Some(TOKEN), "no *.safetensors file in the directory"),
    ] {
        let finished = load(location, home.path(), |command| {
            command.env("HF_ENDPOINT", hub.url("").trim_end_matches('/'));
            command.envs(token.map(|token| ("HF_TOKEN", token)));
        });
        assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
        assert!(finished.stderr.contains(part), "{location}: {finished:#?}");
    }
}

#[test]
fn cached_files_load_without_the_hub() {
    let home = directory();
    let repository = home.path().join(".cache/huggingface/hub/models--owner--repo");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    write(&repository.join("blobs/1"), &tensors(), None);
    std::os::unix::fs::symlink("../../blobs/1", snapshot.join("model.safetensors")).unwrap();
    for location in ["hf://owner/repo/model.safetensors", "hf://owner/repo"] {
        let finished = load(location, home.path(), |command| {
            command.env("HF_HUB_OFFLINE", "1");
        });
        assert_eq!(finished.stdout, digest_lines(&tensors()), "{finished:#?}");
    }
    let finished = load("hf://owner/repo/x.safetensors", home.path(), |command| {
        command.env("HF_HUB_OFFLINE", "1");
    });
    assert!(finished.stderr.contains("HF_HUB_OFFLINE is set, and hf://owner/repo/x.safetensors"));
}

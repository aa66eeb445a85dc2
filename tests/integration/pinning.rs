//! Objects that are replaced while they are read, on servers that do not make it easy to notice.
//!
//! A server that sent neither an ETag nor a modification time was taken for one whose object never
//! changes: 66 of 81 loads during a replacement mixed both versions, without a word and with exit
//! status 0. Such an object is now an error that names `--unpinned`, which warns. A response without
//! the validator that the object was opened with is an error too. Servers whose copies of one object
//! have different validators are told apart from a replacement, with a way to go on (`--pin`).

use crate::common::command::{ringload, run};
use crate::common::fault_server::{ETAG, FaultServer, Reply, Request};
use crate::common::model::{Model, loader};
use ringload::{ErrorKind, PinBy};

/// Two versions that differ in all of their data, and nowhere else.
fn versions() -> [Model; 2] {
    let one = Model::new(&[9_000_000, 9_000_000, 9_000_000]);
    let mut two = one.clone();
    let data = one.data_offset();
    two.file[data..].iter_mut().for_each(|byte| *byte = !*byte);
    [one, two]
}

/// The response to `request` for `file`, without any validator.
fn bare(request: &Request, file: &[u8]) -> Reply {
    let (first, last) = request.range().unwrap();
    let range = format!("bytes {first}-{}/{}", last.min(file.len() - 1), file.len());
    Reply::new(206).with("Content-Range", range).body(&file[first..=last.min(file.len() - 1)])
}

/// Serves the first version, and the second one from the fourth request on.
fn replaced() -> FaultServer {
    let [one, two] = versions();
    FaultServer::start(one.file.clone(), move |number, request| {
        bare(request, if number < 3 { &one.file } else { &two.file })
    })
}

#[test]
fn an_object_without_validators_is_refused_unless_that_is_permitted() {
    let server = replaced();
    let load = |options: &[&str]| {
        run(ringload().args(["load", "--drop", &server.url(), "--connections", "1"]).args(options))
    };
    let refused = load(&[]).failure();
    assert!(refused.contains("neither an ETag nor a Last-Modified header"), "{refused}");
    assert!(refused.contains("--unpinned"), "{refused}");
    assert_eq!(server.seen().len(), 1, "data was requested");
    let refused = load(&["--pin", "etag"]).failure();
    assert!(refused.contains("no ETag header") && refused.contains("--unpinned"), "{refused}");

    for (options, by) in [
        (&["--unpinned"][..], "its length alone"),
        (&["--pin", "length"], "its length alone"),
        (&["--pin", "none"], "nothing"),
    ] {
        let loaded = load(options);
        assert!(loaded.status.success(), "{loaded:#?}");
        assert!(loaded.stderr.contains(&format!("is pinned by {by}")), "{loaded:#?}");
    }
}

/// The length is compared all the same.
#[test]
fn an_unpinned_object_of_another_length_is_refused() {
    let [one, two] = versions();
    let server = FaultServer::start(one.file.clone(), move |number, request| match number {
        0 => bare(request, &one.file),
        _ => bare(request, &two.file[..two.file.len() - 1]),
    });
    let error = one_error(&server, &loader().unpinned(true));
    assert!(error.contains("its length differs"), "{error}");
}

/// So is the checksum, where the store has one.
#[test]
fn an_unpinned_object_is_compared_with_its_checksum() {
    let (store, [one, two]) = (
        |served: [Model; 2]| {
            // CRC-32 in the notation of S3.
            let checksum = base64_of_crc32(&served[0].file);
            FaultServer::start(served[0].file.clone(), move |number, request| {
                match request.method.as_str() {
                    "HEAD" => Reply::new(200).with("x-amz-checksum-crc32", &checksum),
                    _ if number < 4 => bare(request, &served[0].file),
                    _ => bare(request, &served[1].file),
                }
            })
        },
        versions(),
    );
    let load = |server: &FaultServer, options: &[&str]| {
        let mut command = ringload();
        command.args(["load", "--drop", "s3://bucket/x.safetensors", "--connections", "1"]);
        command.args(["--unpinned", "--endpoint", &server.origin()]).args(options);
        run(command.env("RUNAI_STREAMER_S3_UNSIGNED", "1"))
    };
    let unchanged = load(&store([one.clone(), one.clone()]), &["--json"]);
    assert!(unchanged.stdout.contains("\"verified_objects\": 1"), "{unchanged:#?}");
    let mixed = load(&store([one, two]), &[]);
    assert_eq!(mixed.status.code(), Some(1), "{mixed:#?}");
    assert!(mixed.stderr.contains("is corrupt"), "{mixed:#?}");
}

fn base64_of_crc32(bytes: &[u8]) -> String {
    use base64::Engine;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32;
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

#[track_caller]
fn one_error(server: &FaultServer, loader: &ringload::Loader) -> String {
    let error = Model::small().load(loader, &server.url()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    error.to_string()
}

#[test]
fn a_replacement_is_noticed_by_each_validator() {
    let [one, two] = versions();
    for header in ["ETag", "Last-Modified"] {
        let (one, two) = (one.file.clone(), two.file.clone());
        let server = FaultServer::start(one.clone(), move |number, request| match number {
            0 => bare(request, &one).with(header, "\"one\""),
            1 => bare(request, &one), // the validator is left out
            _ => bare(request, &two).with(header, "\"two\""),
        });
        let error = one_error(&server, &loader());
        assert!(error.contains(&format!("the header {header}")), "{error}");
        assert!(error.contains("pin=length"), "{error}");
    }
}

/// Servers behind one name that have copies with different times, and make their validators of them.
#[test]
fn copies_with_other_times_are_no_replacement() {
    let model = Model::small();
    for (header, values, says) in [
        ("ETag", ["\"one\"", "\"two\""], "send different ETags"),
        ("Last-Modified", ["Mon", "Tue"], "send different modification times"),
    ] {
        let file = model.file.clone();
        let server = FaultServer::start(model.file.clone(), move |number, request| {
            bare(request, &file).with(header, values[number % 2])
        });
        let error = one_error(&server, &loader());
        assert!(error.contains("was not replaced") && error.contains(says), "{error}");
        assert!(error.contains("pin=length"), "{error}");
        model.load(&loader().pin(PinBy::Length), &server.url()).unwrap();
    }
}

/// A proxy that compresses makes the tag weak, and leaves ranges as they are.
#[test]
fn the_weak_form_of_a_tag_is_no_replacement() {
    let model = Model::small();
    let server = FaultServer::start(model.file.clone(), |number, request| match number {
        0 => request.right(),
        _ => request.right().with("ETag", format!("W/{ETAG}")),
    });
    let error = one_error(&server, &loader());
    assert!(error.contains("and in a weak form") && error.contains("pin=etag"), "{error}");
    let server = FaultServer::start(model.file.clone(), |number, request| match number % 2 {
        0 => request.right(),
        _ => request.right().with("ETag", format!("W/{ETAG}")),
    });
    model.load(&loader().pin(PinBy::Etag), &server.url()).unwrap();
    let (loader, other) = (loader().pin(PinBy::Etag), Model::small());
    let server = other.serve(|_, request| request.right().with("ETag", "W/\"two\""));
    let error = one_error(&server, &loader);
    assert!(error.contains("its ETag differs"), "{error}");
}

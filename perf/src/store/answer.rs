//! Answers: a range of a file, the objects of a bucket, or an error, with the headers and XML of S3.

use super::Store;
use super::counts;
use super::request::Request;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// An answer: its head, and what is sent after it.
pub struct Answer {
    pub head: String,
    pub body: Body,
}

pub enum Body {
    Text(String),
    /// These bytes of a file.
    File(Rc<File>, Range<u64>),
}

impl Store {
    /// The answer to a request, which was counted.
    pub fn answer(&self, request: &Request) -> Answer {
        if request.path == counts::PATH {
            let text = serde_json::to_string(&self.counters.take()).unwrap_or_default();
            return Answer::text("200 OK", "application/json", text);
        }
        if self.requests.as_ref().is_some_and(|pace| !pace.try_grant()) {
            self.counters.refused();
            return Answer::error("503 Slow Down", "SlowDown", "Please reduce your request rate.");
        }
        if request.parameter("list-type").is_some() {
            return self.list(request);
        }
        match self.file(request) {
            Some(answer) => answer,
            None => Answer::error("404 Not Found", "NoSuchKey", "There is no such key."),
        }
    }

    /// The path of an object below the root; `None` if it leads elsewhere.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let relative = Path::new(key.trim_start_matches('/'));
        let stays = relative.components().all(|part| matches!(part, Component::Normal(_)));
        stays.then(|| self.root.join(relative))
    }

    fn file(&self, request: &Request) -> Option<Answer> {
        let file = File::open(self.path(&request.path)?).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        let len = metadata.len();
        let Some(bytes) = request.bytes(len) else {
            return Some(Answer::error("416 Range Not Satisfiable", "InvalidRange", "No bytes."));
        };
        let (status, range) = match request.range {
            None => ("200 OK", String::new()),
            Some(_) => (
                "206 Partial Content",
                format!("Content-Range: bytes {}-{}/{len}\r\n", bytes.start, bytes.end - 1),
            ),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}ETag: \"{:x}-{len:x}\"\r\n\
             Accept-Ranges: bytes\r\nContent-Type: binary/octet-stream\r\n\r\n",
            bytes.end - bytes.start,
            metadata.mtime(),
        );
        Some(Answer { head, body: Body::File(Rc::new(file), bytes) })
    }

    /// The objects of a bucket whose keys begin with the prefix, in one page.
    fn list(&self, request: &Request) -> Answer {
        let bucket = request.path.trim_matches('/');
        let prefix = request.parameter("prefix").unwrap_or_default();
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let entries = self.path(&format!("{bucket}/{folder}")).map(fs::read_dir);
        let mut found: Vec<_> = entries
            .and_then(Result::ok)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let len = entry.metadata().ok().filter(fs::Metadata::is_file)?.len();
                key.starts_with(&prefix).then_some((key, len))
            })
            .collect();
        found.sort();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>{bucket}</Name>\
             <Prefix>{prefix}</Prefix><KeyCount>{}</KeyCount><IsTruncated>false</IsTruncated>",
            found.len()
        );
        for (key, len) in found {
            let _ = write!(text, "<Contents><Key>{key}</Key><Size>{len}</Size></Contents>");
        }
        text.push_str("</ListBucketResult>");
        Answer::text("200 OK", "application/xml", text)
    }
}

impl Answer {
    fn text(status: &str, kind: &str, text: String) -> Self {
        let len = text.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nContent-Type: {kind}\r\n\r\n");
        Self { head, body: Body::Text(text) }
    }

    fn error(status: &str, code: &str, message: &str) -> Self {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
             <Message>{message}</Message></Error>"
        );
        Self::text(status, "application/xml", text)
    }
}

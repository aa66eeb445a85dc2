//! What a seed of the campaign in `chaos` determines: the object and its versions, how its server
//! identifies them, how the object is loaded, and which faults the server has.

use crate::chaos::KINDS;
use crate::chaos_faults::fault;
use crate::common::certificates;
use crate::common::fault_server::{End, FaultServer, Reply, Request};
use crate::common::model::Model;
use fastrand::Rng;
use ringload::{CacheValidate, Error, ErrorKind, Loader, MemoryLimit, RetryLimits};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The server has faults.
    Bad,
    /// It resets all connections.
    Offline,
    /// It has the last version, and no faults.
    Good,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Bad, Self::Offline, Self::Good];

    pub fn name(self) -> &'static str {
        ["bad server", "offline", "good server"][self as usize]
    }

    pub fn named(name: &str) -> Self {
        *Self::ALL.iter().find(|phase| phase.name() == name).unwrap()
    }
}

/// The validators that the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validators {
    Etag,
    EtagAndTime,
    WeakEtag,
    WeakEtagAndTime,
    Time,
    None,
}

/// What happens to the object while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    No,
    /// The new version has other validators.
    Validators,
    /// It has the same ones and the same length: nobody can notice that.
    Unnoticed,
    /// It has other validators and another length.
    Length,
    /// Each request gets one of the versions, as from servers that are not in step.
    InTurns,
}

/// The campaign's load of one seed.
pub struct Scene {
    pub seed: u64,
    pub tls: bool,
    /// Whether the object is in a bucket with a checksum, which the load verifies.
    pub verified: bool,
    is_s3: bool,
    pub cached: bool,
    pub rounds: u32,
    pub kills: bool,
    pub damages: bool,
    unpinned: bool,
    /// Whether the server heeds `If-Match` and `If-Unmodified-Since`.
    heeds_conditions: bool,
    validators: Validators,
    replaced: Replaced,
    /// From which request on there is the second version.
    replaced_at: usize,
    /// How many of 100 responses have a fault.
    faults: u32,
    versions: [Model; 2],
    phase: Arc<AtomicU8>,
}

/// Without the objects.
impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, tls, verified, is_s3, cached, kills, .. } = self;
        let Self { damages, unpinned, validators, replaced, replaced_at, faults, .. } = self;
        write!(
            f,
            "seed {seed} (RINGLOAD_TEST_SEEDS={seed}..{}): tls {tls}, S3 {is_s3}, verified {verified}, \
             cached {cached}, kills {kills}, damages {damages}, unpinned {unpinned}, {validators:?}, \
             replaced {replaced:?} at request {replaced_at}, faults {faults} %",
            seed + 1
        )
    }
}

/// The sizes of the tensors of an object.
fn sizes(rng: &mut Rng) -> Vec<usize> {
    match rng.u8(..6) {
        0 => vec![40_000, 0, 25_536],
        1 => vec![3_000_000, 17, 1_200_000],
        2 => vec![1000; 200],
        3 => vec![9_000_001],
        // A header that is longer than the first request.
        4 => (0..1500).map(|number| number % 700).collect(),
        _ => (0..rng.usize(1..12)).map(|_| rng.usize(..600_000)).collect(),
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let one = Model::new(&sizes(rng));
        let mut replaced = pick(
            rng,
            &[
                Replaced::No,
                Replaced::No,
                Replaced::Validators,
                Replaced::Validators,
                Replaced::Unnoticed,
                Replaced::Length,
                Replaced::InTurns,
            ],
        );
        let mut two = match replaced {
            Replaced::Length => Model::new(&sizes(rng)),
            _ => one.clone(),
        };
        if replaced == Replaced::Length && two.file.len() == one.file.len() {
            replaced = Replaced::Validators;
            two = one.clone();
        }
        let data = two.data_offset();
        two.file[data..].iter_mut().for_each(|byte| *byte = !*byte);
        let tensors = Arc::make_mut(&mut two.tensors).values_mut();
        tensors.for_each(|tensor| tensor.bytes.iter_mut().for_each(|byte| *byte = !*byte));
        let all = [
            Validators::Etag,
            Validators::Etag,
            Validators::EtagAndTime,
            Validators::WeakEtag,
            Validators::WeakEtagAndTime,
            Validators::Time,
            Validators::None,
        ];
        let is_s3 = rng.u8(..3) == 0;
        let verified = is_s3 && rng.u8(..3) > 0;
        Self {
            seed,
            tls: rng.bool(),
            verified,
            is_s3,
            cached: !verified && rng.u8(..3) > 0,
            rounds: 1 + rng.u32(..2),
            kills: rng.bool(),
            damages: rng.u8(..3) == 0,
            unpinned: rng.u8(..3) == 0,
            heeds_conditions: rng.u8(..3) > 0,
            validators: pick(rng, &all),
            replaced,
            replaced_at: rng.usize(1..9),
            faults: pick(rng, &[0, 5, 10, 20, 30, 60]),
            versions: [one, two],
            phase: Arc::default(),
        }
    }

    /// Starts a phase of the server.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The server of the scene.
    pub fn serve(self: &Arc<Self>, certificates: &Path) -> FaultServer {
        let scene = Arc::clone(self);
        let script = move |number: usize, request: &Request| scene.reply(number, request);
        match self.tls {
            false => FaultServer::start(Vec::new(), script),
            true => {
                FaultServer::start_tls(certificates::acceptor(certificates), Vec::new(), script)
            }
        }
    }

    fn reply(&self, number: usize, request: &Request) -> Reply {
        let phase = Phase::ALL[self.phase.load(Ordering::Relaxed) as usize];
        if phase == Phase::Offline {
            return Reply::raw("", End::Reset);
        }
        let version = match self.replaced {
            Replaced::No => 0,
            _ if phase == Phase::Good => 1,
            Replaced::InTurns => number % 2,
            _ => usize::from(number >= self.replaced_at),
        };
        let right = self.right(request, version);
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
        if phase == Phase::Good || rng.u32(..100) >= self.faults {
            return right;
        }
        fault(&mut rng, request, right, &self.versions[version].file, self.verified)
    }

    /// The response of a good server that has this version.
    fn right(&self, request: &Request, version: usize) -> Reply {
        let file = &self.versions[version].file;
        let named = if self.replaced == Replaced::Unnoticed { 0 } else { version };
        let (etag, time) =
            (format!("\"v{named}\""), format!("Thu, 26 Nov 2026 10:00:0{named} GMT"));
        let (etag, time) = match self.validators {
            Validators::Etag => (Some(etag), None),
            Validators::EtagAndTime => (Some(etag), Some(time)),
            Validators::WeakEtag => (Some(format!("W/{etag}")), None),
            Validators::WeakEtagAndTime => (Some(format!("W/{etag}")), Some(time)),
            Validators::Time => (None, Some(time)),
            Validators::None => (None, None),
        };
        let identified = |mut reply: Reply| {
            if let Some(etag) = &etag {
                reply = reply.with("ETag", etag);
            }
            if let Some(time) = &time {
                reply = reply.with("Last-Modified", time);
            }
            reply
        };
        let differs = |name, now: &Option<String>| {
            request.header(name).is_some_and(|wanted| now.as_deref() != Some(wanted))
        };
        let fails = differs("if-match", &etag) || differs("if-unmodified-since", &time);
        if self.heeds_conditions && fails {
            return Reply::new(412);
        }
        if etag.is_some() && request.header("if-none-match") == etag.as_deref() {
            return identified(Reply::new(304));
        }
        let total = file.len();
        let reply = match request.range() {
            Some((first, _)) if first >= total => {
                Reply::new(416).with("Content-Range", format!("bytes */{total}"))
            }
            Some((first, last)) => {
                let last = last.min(total - 1);
                let range = format!("bytes {first}-{last}/{total}");
                Reply::new(206).with("Content-Range", range).body(&file[first..=last])
            }
            None if request.method == "HEAD" && self.is_s3 => {
                Reply::new(200).with("x-amz-checksum-crc32", checksum(file)).body(file)
            }
            None => Reply::new(200).body(file),
        };
        identified(reply)
    }

    pub fn location(&self, origin: &str) -> String {
        match self.is_s3 {
            true => "s3://bucket/x.safetensors".to_owned(),
            false => format!("{origin}/x.safetensors"),
        }
    }

    pub fn loader(&self, phase: Phase, origin: &str, cache: &Path) -> Loader {
        let rng = &mut Rng::with_seed(self.seed ^ (1 + phase as u64) << 40);
        let mut limits = RetryLimits::default();
        limits.attempts = 4;
        limits.total = Duration::from_secs(3);
        limits.connect = Duration::from_secs(5);
        // A good server that is late because the machine is busy is not given up.
        let waits = if phase == Phase::Good { 60_000 } else { 400 };
        limits.first_byte = Duration::from_millis(waits);
        limits.stalled = Duration::from_millis(waits);
        if phase == Phase::Good {
            limits.total = Duration::from_secs(100);
        }
        let memory = [MemoryLimit::Unlimited, MemoryLimit::Min, MemoryLimit::Bytes(12 << 20)];
        let mut loader = Loader::from_env()
            .engines(1 + rng.usize(..2))
            .retry_limits(limits)
            .memory_limit(pick(rng, &memory))
            .verify(self.verified)
            .unpinned(self.unpinned);
        if rng.bool() {
            loader = loader.connections(rng.usize(1..6));
        }
        if self.is_s3 {
            loader = loader.endpoint(origin);
        }
        if self.cached {
            loader = loader.cache_dir(cache).cache_validate(match phase {
                Phase::Offline => CacheValidate::Never,
                _ => CacheValidate::Always,
            });
        }
        loader
    }

    /// Whether a load from a good server succeeds.
    pub fn can_be_loaded(&self) -> bool {
        self.unpinned || self.validators != Validators::None
    }

    /// Whether the faults may cause this error.
    pub fn expects(&self, error: &Error) -> bool {
        match error.kind() {
            // Bits flip, in the header too.
            ErrorKind::Corrupt | ErrorKind::InvalidCheckpoint if self.verified => true,
            // The checksum of the bucket is compared where nothing else is.
            ErrorKind::Corrupt => self.is_s3 && self.unpinned,
            // Without bits that flip, a header that is invalid was put together wrongly, unless the
            // server has told a wrong length: also that of an empty object, by a status 416.
            ErrorKind::InvalidCheckpoint => {
                let told = error.to_string();
                told.contains("of tensor data, the file has") || told.contains("the file is empty")
            }
            // S3 answers with a redirect when the bucket is in another region.
            ErrorKind::InvalidInput => self.is_s3 && error.to_string().contains("another region"),
            kind => KINDS.contains(&kind),
        }
    }

    /// Whether these are the tensors of one version: in the last phase, of the last one.
    pub fn is_right(&self, phase: Phase, tensors: &BTreeMap<String, Vec<u8>>) -> bool {
        let is = |version: &Model| {
            version.tensors.len() == tensors.len()
                && version
                    .tensors
                    .iter()
                    .all(|(name, tensor)| tensors.get(name) == Some(&tensor.bytes))
        };
        let [one, two] = &self.versions;
        if !self.is_noticed() {
            return self.is_either(tensors);
        }
        match (self.replaced, phase) {
            (Replaced::No, _) => is(one),
            (_, Phase::Good) => is(two),
            _ => is(one) || is(two),
        }
    }

    /// Whether a replacement can be told from the responses. A checksum tells it, too.
    fn is_noticed(&self) -> bool {
        self.verified
            || match self.replaced {
                Replaced::No | Replaced::Length => true,
                Replaced::Unnoticed => false,
                Replaced::Validators | Replaced::InTurns => self.validators != Validators::None,
            }
    }

    /// Whether each byte is in its place of one of the versions.
    fn is_either(&self, tensors: &BTreeMap<String, Vec<u8>>) -> bool {
        let [one, two] = &self.versions;
        one.tensors.len() == tensors.len()
            && tensors.iter().all(|(name, bytes)| {
                let (one, two) = (&one.tensors[name].bytes, &two.tensors[name].bytes);
                let mut bytes = bytes.iter().zip(one).zip(two);
                bytes.len() == one.len()
                    && bytes.all(|((byte, one), two)| byte == one || byte == two)
            })
    }
}

/// CRC-32 in the notation of S3.
fn checksum(bytes: &[u8]) -> String {
    use base64::Engine;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32;
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

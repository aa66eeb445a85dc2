//! Parses the JSON of headers and indexes into vectors.
//!
//! A map would hide a repeated key, so objects are visited and their entries are pushed in the order
//! of the text. Memory is linear in the text. Unused values are parsed too ([`Skip`]), so that the
//! whole text must be valid JSON; nesting is limited to serde_json's 128 levels. An error in the entry
//! of a tensor begins with the tensor's name, and serde_json adds line and column.
//!
//! As the `safetensors` crate does, the parser accepts whitespace after the object, unknown fields of
//! a tensor, and `"__metadata__": null`. It is stricter in three ways: no object that is used may
//! repeat a key, a tensor's entry must be an object (not an array of its values), and a dtype must be
//! a string.

use super::text::Quoted;
use crate::dtype::Dtype;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The maximum number of files that an index may name. Checkpoints of a thousand shards are known.
const FILES_MAX: usize = 50_000;

/// A parsed header in the order of the text. Its offsets are not checked.
#[derive(Default)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<HeaderEntry>,
}

/// One tensor of a header. Offsets are in bytes from the end of the header.
pub(super) struct HeaderEntry {
    pub(super) name: Box<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Box<[usize]>,
    pub(super) data_offsets: [u64; 2],
}

/// The `weight_map` of an index.
#[derive(Default)]
pub(super) struct WeightMap {
    /// The distinct file names, in order of appearance.
    pub(super) shards: Vec<Box<str>>,
    /// Each tensor with the position of its file in `shards`, in the order of the text.
    pub(super) tensors: Vec<(Box<str>, u32)>,
}

/// Parses a header.
pub(super) fn parse_header(text: &str) -> serde_json::Result<Header> {
    parse(text, Header::default())
}

/// Parses the value of `__metadata__`, with which `text` begins. Returns the length of the value, too.
pub(super) fn metadata_at_start(text: &str) -> Option<(BTreeMap<String, String>, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Option<Metadata>>();
    let metadata = values.next()?.ok()?;
    Some((metadata.unwrap_or_default().0, values.byte_offset()))
}

/// Parses an index.
pub(super) fn parse_index(text: &str) -> serde_json::Result<WeightMap> {
    parse(text, IndexVisitor)
}

/// Parses `text`, which must be one object.
fn parse<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> serde_json::Result<V::Value> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = json.deserialize_map(visitor)?;
    json.end()?;
    Ok(value)
}

/// Prepends `what` to `message`.
fn about<E: de::Error>(what: impl fmt::Display, message: &E) -> E {
    E::custom(format_args!("{what}: {message}"))
}

impl<'de> Visitor<'de> for Header {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name != "__metadata__" {
                self.tensors.push(entry(name, &mut map)?);
                continue;
            }
            if has_metadata {
                return Err(A::Error::custom("\"__metadata__\" occurs twice in the header"));
            }
            has_metadata = true;
            let metadata = map.next_value::<Option<Metadata>>();
            let metadata = metadata.map_err(|error| about("\"__metadata__\"", &error))?;
            self.metadata = metadata.unwrap_or_default().0;
        }
        Ok(self)
    }
}

/// Parses the entry of the tensor `name`, which is the next value of `map`.
fn entry<'de, A: MapAccess<'de>>(name: Box<str>, map: &mut A) -> Result<HeaderEntry, A::Error> {
    match map.next_value_seed(EntryVisitor) {
        Ok((dtype, shape, data_offsets)) => Ok(HeaderEntry { name, dtype, shape, data_offsets }),
        Err(error) => Err(about(format_args!("tensor {}", Quoted(&name)), &error)),
    }
}

struct EntryVisitor;

type EntryFields = (Dtype, Box<[usize]>, [u64; 2]);

impl<'de> DeserializeSeed<'de> for EntryVisitor {
    type Value = EntryFields;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<EntryFields, D::Error> {
        json.deserialize_map(self)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    DataOffsets,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = EntryFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntryFields, A::Error> {
        let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Dtype => {
                    once(&mut dtype, "dtype", map.next_value().map(|DtypeName(it)| it))?
                }
                Field::Shape => once(&mut shape, "shape", map.next_value())?,
                Field::DataOffsets => once(&mut data_offsets, "data_offsets", map.next_value())?,
                Field::Other => {
                    map.next_value::<Skip>()?;
                }
            }
        }
        Ok((
            dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            data_offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        ))
    }
}

/// Stores the value of `field` in `slot`, which must be empty.
fn once<T, E: de::Error>(
    slot: &mut Option<T>,
    field: &'static str,
    value: Result<T, E>,
) -> Result<(), E> {
    match slot.replace(value.map_err(|error| about(field, &error))?) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(field)),
    }
}

struct DtypeName(Dtype);

impl<'de> Deserialize<'de> for DtypeName {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = DtypeName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<DtypeName, E> {
                Dtype::from_name(name).map(DtypeName).ok_or_else(|| {
                    E::custom(format_args!("{} is not a known element type", Quoted(name)))
                })
            }
        }

        json.deserialize_str(NameVisitor)
    }
}

/// A map of strings, parsed from an object without repeated keys.
#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Metadata::default())
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.0.contains_key(&key) {
                let key = Quoted(&key);
                return Err(A::Error::custom(format_args!("{key} occurs twice")));
            }
            let value = map.next_value::<String>();
            let value = value.map_err(|error| about(Quoted(&key), &error))?;
            self.0.insert(key, value);
        }
        Ok(self)
    }
}

struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut weight_map = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "weight_map" {
                once(&mut weight_map, "weight_map", map.next_value())?;
            } else {
                map.next_value::<Skip>()?;
            }
        }
        weight_map.ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(WeightMap::default())
    }
}

impl<'de> Visitor<'de> for WeightMap {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that gives each tensor its file")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut positions: HashMap<Box<str>, u32> = HashMap::new();
        // The position of the last tensor's file, which usually is that of the next one.
        let mut position = 0;
        while let Some(tensor) = map.next_key::<Box<str>>()? {
            let of_tensor = |error| about(format_args!("tensor {}", Quoted(&tensor)), &error);
            let FileName(file) = map.next_value().map_err(of_tensor)?;
            if self.shards.get(position as usize).map(|last| &**last) != Some(&*file) {
                // The text has fewer than 2^30 bytes (see MAX_BYTES in the module index).
                let free = self.shards.len() as u32;
                position = *positions.entry(file.as_ref().into()).or_insert(free);
                if position == free {
                    if self.shards.len() == FILES_MAX {
                        let sentence = format_args!("more than {FILES_MAX} files are named");
                        return Err(A::Error::custom(sentence));
                    }
                    self.shards.push(file.into_owned().into());
                }
            }
            self.tensors.push((tensor, position));
        }
        Ok(self)
    }
}

/// A string, borrowed from the text if it has no escapes.
#[derive(Deserialize)]
struct FileName<'a>(#[serde(borrow)] Cow<'a, str>);

/// Any value, which is parsed completely and dropped.
///
/// serde_json skips ahead for serde's `IgnoredAny` and would accept strings that are not Unicode,
/// numbers out of range, and unlimited nesting. This type rejects them.
struct Skip;

impl<'de> Deserialize<'de> for Skip {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Skip)
    }
}

/// The methods of a visitor that skip scalar values.
macro_rules! skip_scalars {
    ($($method:ident($value:ty))*) => {
        $(fn $method<E>(self, _: $value) -> Result<Skip, E> {
            Ok(Skip)
        })*
    };
}

impl<'de> Visitor<'de> for Skip {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    skip_scalars! { visit_bool(bool) visit_u64(u64) visit_i64(i64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Skip)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(Skip)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Skip, Skip>()?.is_some() {}
        Ok(Skip)
    }
}

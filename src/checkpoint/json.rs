//! The JSON of headers and indexes, read straight into vectors.
//!
//! Maps would hide a key that stands twice, so objects are visited and their entries pushed in
//! the order of the text: nothing is lost, and memory stays linear in the text. What is not wanted
//! is read all the same ([`Skip`]), so that the text is either JSON as a whole or refused; nesting
//! ends at serde_json's 128 levels. Where an entry of a tensor is wrong, the message begins with
//! the tensor's name; serde_json adds line and column.
//!
//! Accepted as in the `safetensors` crate: whitespace behind the object, unknown fields of a
//! tensor, `"__metadata__": null`. Stricter than it: no key twice in any object that is used, a
//! tensor's entry is an object (not an array of its values), a dtype is a string.

use super::dtype::{self, Dtype};
use super::text::Quoted;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// A header as it stands in the text, in the text's order. Nothing about offsets is checked.
#[derive(Default)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<Entry>,
}

/// One tensor of a header. Offsets are bytes from the end of the header.
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Box<[usize]>,
    pub(super) data_offsets: [u64; 2],
}

/// An index as it stands in the text.
#[derive(Default)]
pub(super) struct WeightMap {
    /// The distinct file names, in order of appearance.
    pub(super) shards: Vec<Box<str>>,
    /// Each tensor and the position in `shards` of its file, in the text's order.
    pub(super) tensors: Vec<(Box<str>, u32)>,
}

/// Reads a header.
pub(super) fn parse_header(text: &str) -> serde_json::Result<Header> {
    let mut json = serde_json::Deserializer::from_str(text);
    let header = json.deserialize_map(HeaderVisitor)?;
    json.end()?;
    Ok(header)
}

/// Reads an index.
pub(super) fn parse_index(text: &str) -> serde_json::Result<WeightMap> {
    let mut json = serde_json::Deserializer::from_str(text);
    let weight_map = json.deserialize_map(IndexVisitor)?;
    json.end()?;
    Ok(weight_map)
}

/// `message` with what it is about in front.
fn about<E: de::Error>(what: impl fmt::Display, message: &E) -> E {
    E::custom(format_args!("{what}: {message}"))
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name != "__metadata__" {
                header.tensors.push(entry(name, &mut map)?);
                continue;
            }
            if has_metadata {
                return Err(A::Error::custom("\"__metadata__\" stands twice in the header"));
            }
            has_metadata = true;
            let metadata = map.next_value::<Option<Metadata>>();
            let metadata = metadata.map_err(|error| about("\"__metadata__\"", &error))?;
            header.metadata = metadata.unwrap_or_default().0;
        }
        Ok(header)
    }
}

/// The entry of the tensor `name`, which is the next value of `map`.
fn entry<'de, A: MapAccess<'de>>(name: Box<str>, map: &mut A) -> Result<Entry, A::Error> {
    match map.next_value_seed(EntryVisitor) {
        Ok((dtype, shape, data_offsets)) => Ok(Entry { name, dtype, shape, data_offsets }),
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

/// Puts the value of `field` into `place`, which must be free.
fn once<T, E: de::Error>(
    place: &mut Option<T>,
    field: &'static str,
    value: Result<T, E>,
) -> Result<(), E> {
    match place.replace(value.map_err(|error| about(field, &error))?) {
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
                dtype::from_name(name).map(DtypeName).ok_or_else(|| {
                    E::custom(format_args!("{} is not a known element type", Quoted(name)))
                })
            }
        }

        json.deserialize_str(NameVisitor)
    }
}

/// A map of strings in which no key stands twice.
#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;

        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut metadata = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if metadata.contains_key(&key) {
                        let key = Quoted(&key);
                        return Err(A::Error::custom(format_args!("{key} stands twice")));
                    }
                    let value = map.next_value::<String>();
                    let value = value.map_err(|error| about(Quoted(&key), &error))?;
                    metadata.insert(key, value);
                }
                Ok(Metadata(metadata))
            }
        }

        json.deserialize_map(MetadataVisitor)
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
        json.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that gives each tensor its file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut weight_map = WeightMap::default();
        let mut positions: HashMap<Box<str>, u32> = HashMap::new();
        // That of the last tensor's file: mostly the next one's too.
        let mut position = 0;
        while let Some(tensor) = map.next_key::<Box<str>>()? {
            let of_tensor = |error| about(format_args!("tensor {}", Quoted(&tensor)), &error);
            let FileName(file) = map.next_value().map_err(of_tensor)?;
            if weight_map.shards.get(position as usize).map(|last| &**last) != Some(&*file) {
                // The text has room for fewer than 2^30 (see MAX_BYTES in the module index).
                let free = weight_map.shards.len() as u32;
                position = *positions.entry(file.as_ref().into()).or_insert(free);
                if position == free {
                    weight_map.shards.push(file.into_owned().into());
                }
            }
            weight_map.tensors.push((tensor, position));
        }
        Ok(weight_map)
    }
}

/// A string, borrowed from the text where it has no escapes.
#[derive(Deserialize)]
struct FileName<'a>(#[serde(borrow)] Cow<'a, str>);

/// Any value, read in full and dropped.
///
/// Unlike serde's `IgnoredAny`, for which serde_json skips ahead, it sees what cannot be read: a string
/// that is not Unicode, a number out of range, nesting without end.
struct Skip;

impl<'de> Deserialize<'de> for Skip {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct SkipVisitor;

        impl<'de> Visitor<'de> for SkipVisitor {
            type Value = Skip;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_str<E>(self, _: &str) -> Result<Skip, E> {
                Ok(Skip)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Skip, A::Error> {
                while seq.next_element::<Skip>()?.is_some() {}
                Ok(Skip)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skip, A::Error> {
                while map.next_entry::<Skip, Skip>()?.is_some() {}
                Ok(Skip)
            }
        }

        json.deserialize_any(SkipVisitor)
    }
}

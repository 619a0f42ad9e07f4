//! Descriptors, compiled into tables that the codec walks: fields by number and by name, keys and tags ready to copy.
//!
//! Invariant: tables never change after they are made, and every index in them is in range.

use std::{collections::HashMap, sync::Arc};

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, Syntax,
    prost_types::FieldDescriptorProto,
};

use crate::{Codec, known::Known, names::Names};

/// The messages of a set of descriptors, ready to be read and written. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema {
    tables: Arc<Tables>,
}

/// Why descriptors do not make a schema.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The descriptors contradict each other, or one that is imported is absent.
    #[error("the descriptors are not complete: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
}

impl Schema {
    /// Compiles everything that a pool knows, extensions included.
    pub fn new(pool: &DescriptorPool) -> Self {
        Schema { tables: Arc::new(Tables::new(pool)) }
    }

    /// Compiles an encoded `google.protobuf.FileDescriptorSet`, as `protoc --include_imports -o` or `buf build` write it.
    pub fn decode(file_descriptor_set: &[u8]) -> Result<Self, SchemaError> {
        Ok(Schema::new(&DescriptorPool::decode(file_descriptor_set)?))
    }

    /// The codec of a message by its full name, `shop.v1.Order`.
    pub fn codec(&self, message: &str) -> Option<Codec> {
        let index = *self.tables.by_name.get(message)?;
        Some(Codec { tables: self.tables.clone(), message: index })
    }
}

#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
    pub(crate) by_name: HashMap<Box<str>, u32>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: Box<str>,
    pub(crate) known: Option<Known>,
    /// In the order of their numbers.
    pub(crate) fields: Vec<Field>,
    /// Index into `fields` plus one for the numbers that are small; zero is no field.
    dense: Vec<u16>,
    names: Names,
    pub(crate) required: Vec<u16>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// Index in the message's fields.
    pub(crate) index: u16,
    /// What cannot be given twice: the field itself, or the oneof it is a member of.
    pub(crate) slot: u16,
    pub(crate) in_oneof: bool,
    pub(crate) required: bool,
    /// An enum of proto2, whose unknown numbers count as unknown fields.
    pub(crate) closed: bool,
    /// The wire types in which the field may come, a bit each.
    accepts: u8,
    /// The JSON name.
    pub(crate) name: Box<str>,
    proto_name: Box<str>,
    /// `,"jsonName":`
    pub(crate) json_key: Box<[u8]>,
    /// `,"proto_name":`
    pub(crate) proto_key: Box<[u8]>,
    /// How a value, or one element, begins on the wire.
    pub(crate) tag: Tag,
    /// How a packed list begins on the wire; the same as `tag` if lists are not packed.
    pub(crate) list_tag: Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One { presence: bool },
    Many { packed: bool },
    Map { key: Kind, value: Kind },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(u32),
    Message(u32),
    Group(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    StartGroup,
    EndGroup,
    Fixed32,
}

impl WireType {
    pub(crate) fn code(self) -> u8 {
        match self {
            WireType::Varint => 0,
            WireType::Fixed64 => 1,
            WireType::Bytes => 2,
            WireType::StartGroup => 3,
            WireType::EndGroup => 4,
            WireType::Fixed32 => 5,
        }
    }
}

impl Kind {
    pub(crate) fn wire_type(self) -> WireType {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
            Kind::String | Kind::Bytes | Kind::Message(_) => WireType::Bytes,
            Kind::Group(_) => WireType::StartGroup,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Bool
            | Kind::Enum(_) => WireType::Varint,
        }
    }

    /// As a `.proto` file calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Double => "double",
            Kind::Float => "float",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::Sint32 => "sint32",
            Kind::Sint64 => "sint64",
            Kind::Fixed32 => "fixed32",
            Kind::Fixed64 => "fixed64",
            Kind::Sfixed32 => "sfixed32",
            Kind::Sfixed64 => "sfixed64",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
            Kind::Group(_) => "group",
        }
    }

    pub(crate) fn packable(self) -> bool {
        !matches!(self.wire_type(), WireType::Bytes | WireType::StartGroup)
    }
}

/// An encoded tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; 5],
    length: u8,
}

impl Tag {
    pub(crate) fn new(number: u32, wire_type: WireType) -> Self {
        let mut tag = Tag { bytes: [0; 5], length: 0 };
        let mut rest = number << 3 | u32::from(wire_type.code());
        for byte in &mut tag.bytes {
            tag.length += 1;
            *byte = rest as u8 & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *byte |= 0x80;
        }
        tag
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

#[derive(Debug)]
pub(crate) struct Enum {
    /// Proto3's enums are open: any number is a value.
    pub(crate) open: bool,
    /// `google.protobuf.NullValue`, whose JSON is `null`.
    pub(crate) null: bool,
    pub(crate) first: i32,
    names: Names,
    /// Number to name, the first of several; sorted.
    numbers: Vec<(i32, Box<str>)>,
    /// True if the number at index n is n, as in most enums.
    dense: bool,
}

impl Enum {
    pub(crate) fn name(&self, number: i32) -> Option<&str> {
        if self.dense {
            return Some(&self.numbers.get(usize::try_from(number).ok()?)?.1);
        }
        let at = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.numbers[at].1)
    }

    pub(crate) fn number(&self, name: &[u8]) -> Option<i32> {
        self.names.get(name).map(|number| number as i32)
    }

    fn new(descriptor: &EnumDescriptor) -> Self {
        // As declared: of several names for one number the first is the one that is written.
        let values = || {
            let values = &descriptor.enum_descriptor_proto().value;
            values.iter().map(|value| (value.number(), value.name()))
        };
        let mut numbers: Vec<(i32, Box<str>)> = values().map(|(number, name)| (number, name.into())).collect();
        numbers.sort_by_key(|(number, _)| *number);
        numbers.dedup_by_key(|(number, _)| *number);
        Enum {
            open: !closed(descriptor),
            null: descriptor.full_name() == "google.protobuf.NullValue",
            first: descriptor.default_value().number(),
            names: Names::new(values().map(|(number, name)| (name.as_bytes().into(), number as u32))),
            dense: numbers.iter().zip(0..).all(|((number, _), at)| *number == at),
            numbers,
        }
    }
}

/// Numbers up to here are looked up in a table, the rest by bisection.
const DENSE: u32 = 1024;

impl Message {
    #[inline]
    pub(crate) fn by_number(&self, number: u32) -> Option<&Field> {
        if let Some(entry) = self.dense.get(number as usize) {
            return self.fields.get(usize::from(*entry).wrapping_sub(1));
        }
        if number < DENSE {
            return None;
        }
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some(&self.fields[at])
    }

    /// `google.protobuf.Empty`, which an `Any` holds under `value` although its JSON is that of its fields.
    pub(crate) fn is_empty_known(&self) -> bool {
        &*self.name == "google.protobuf.Empty"
    }

    /// `google.protobuf.Value`, which has a null of its own.
    pub(crate) fn is_value(&self) -> bool {
        self.known == Some(Known::Value)
    }

    pub(crate) fn by_name(&self, name: &[u8]) -> Option<&Field> {
        self.fields.get(self.names.get(name)? as usize)
    }
}

impl Tables {
    /// The message that an `Any` names: what follows the last slash of its URL.
    pub(crate) fn resolve(&self, url: &[u8]) -> Option<u32> {
        let slash = memchr::memrchr(b'/', url)?;
        self.by_name.get(std::str::from_utf8(&url[slash + 1..]).ok()?).copied()
    }

    fn new(pool: &DescriptorPool) -> Self {
        let enums: HashMap<String, u32> =
            pool.all_enums().zip(0..).map(|(descriptor, at)| (descriptor.full_name().to_owned(), at)).collect();
        let by_name: HashMap<Box<str>, u32> =
            pool.all_messages().zip(0..).map(|(descriptor, at)| (descriptor.full_name().into(), at)).collect();
        let compiler = Compiler { enums: &enums, messages: &by_name };
        Tables {
            messages: pool.all_messages().map(|descriptor| compiler.message(&descriptor)).collect(),
            enums: pool.all_enums().map(|descriptor| Enum::new(&descriptor)).collect(),
            by_name,
        }
    }
}

struct Compiler<'a> {
    enums: &'a HashMap<String, u32>,
    messages: &'a HashMap<Box<str>, u32>,
}

impl Compiler<'_> {
    fn message(&self, descriptor: &MessageDescriptor) -> Message {
        let mut fields: Vec<Field> = descriptor.fields().map(|field| self.field(&field)).collect();
        fields.extend(descriptor.extensions().map(|extension| self.extension(&extension)));
        fields.sort_by_key(|field| field.number);
        let oneofs: Vec<String> = descriptor
            .oneofs()
            .filter(|oneof| !oneof.is_synthetic())
            .map(|oneof| oneof.full_name().to_owned())
            .collect();
        let count = fields.len();
        let highest = fields.iter().map(|field| field.number).filter(|number| *number < DENSE).max();
        let mut dense = vec![0; highest.map_or(0, |number| number as usize + 1)];
        for (at, field) in fields.iter_mut().enumerate() {
            field.index = at as u16;
            field.slot = at as u16;
            if let Some(entry) = dense.get_mut(field.number as usize) {
                *entry = at as u16 + 1;
            }
            let oneof = descriptor.get_field(field.number).and_then(|field| field.containing_oneof());
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|name| name == oneof.full_name()));
            if let Some(oneof) = oneof {
                field.in_oneof = true;
                field.slot = (count + oneof) as u16;
            }
        }
        let json_names = fields.iter().map(|field| (field.name.as_bytes().into(), u32::from(field.index)));
        let proto_names = fields.iter().map(|field| (field.proto_name.as_bytes().into(), u32::from(field.index)));
        let names = Names::new(json_names.chain(proto_names));
        Message {
            name: descriptor.full_name().into(),
            known: Known::of(descriptor),
            required: fields.iter().filter(|field| field.required).map(|field| field.index).collect(),
            fields,
            dense,
            names,
        }
    }

    fn field(&self, descriptor: &FieldDescriptor) -> Field {
        let kind = self.kind(&descriptor.kind(), descriptor.is_group());
        let shape = if let (true, Some(entry)) = (descriptor.is_map(), descriptor.kind().as_message()) {
            let kind = |field: &FieldDescriptor| self.kind(&field.kind(), false);
            Shape::Map { key: kind(&entry.map_entry_key_field()), value: kind(&entry.map_entry_value_field()) }
        } else if descriptor.is_list() {
            Shape::Many { packed: packed(descriptor.field_descriptor_proto(), descriptor.is_packed()) }
        } else {
            Shape::One { presence: descriptor.supports_presence() }
        };
        let field = Field::new(descriptor.number(), kind, shape, descriptor.json_name(), descriptor.name());
        let closed = is_closed(&descriptor.kind());
        Field { required: descriptor.cardinality() == Cardinality::Required, closed, ..field }
    }

    fn extension(&self, descriptor: &ExtensionDescriptor) -> Field {
        let kind = self.kind(&descriptor.kind(), descriptor.is_group());
        let shape = if descriptor.is_list() {
            Shape::Many { packed: packed(descriptor.field_descriptor_proto(), descriptor.is_packed()) }
        } else {
            Shape::One { presence: true }
        };
        let name = format!("[{}]", descriptor.full_name());
        let field = Field::new(descriptor.number(), kind, shape, &name, &name);
        Field { closed: is_closed(&descriptor.kind()), ..field }
    }

    fn kind(&self, kind: &prost_reflect::Kind, group: bool) -> Kind {
        match kind {
            prost_reflect::Kind::Double => Kind::Double,
            prost_reflect::Kind::Float => Kind::Float,
            prost_reflect::Kind::Int32 => Kind::Int32,
            prost_reflect::Kind::Int64 => Kind::Int64,
            prost_reflect::Kind::Uint32 => Kind::Uint32,
            prost_reflect::Kind::Uint64 => Kind::Uint64,
            prost_reflect::Kind::Sint32 => Kind::Sint32,
            prost_reflect::Kind::Sint64 => Kind::Sint64,
            prost_reflect::Kind::Fixed32 => Kind::Fixed32,
            prost_reflect::Kind::Fixed64 => Kind::Fixed64,
            prost_reflect::Kind::Sfixed32 => Kind::Sfixed32,
            prost_reflect::Kind::Sfixed64 => Kind::Sfixed64,
            prost_reflect::Kind::Bool => Kind::Bool,
            prost_reflect::Kind::String => Kind::String,
            prost_reflect::Kind::Bytes => Kind::Bytes,
            prost_reflect::Kind::Enum(descriptor) => Kind::Enum(self.enums[descriptor.full_name()]),
            prost_reflect::Kind::Message(descriptor) => {
                let at = self.messages[descriptor.full_name()];
                if group { Kind::Group(at) } else { Kind::Message(at) }
            }
        }
    }
}

fn closed(descriptor: &EnumDescriptor) -> bool {
    descriptor.parent_file().syntax() == Syntax::Proto2
}

fn is_closed(kind: &prost_reflect::Kind) -> bool {
    kind.as_enum().is_some_and(closed)
}

/// What the file says, if it says something: a pool straight from a compiler knows only the syntax's default.
fn packed(descriptor: &FieldDescriptorProto, default: bool) -> bool {
    descriptor.options.as_ref().and_then(|options| options.packed).unwrap_or(default)
}

fn accepts(kind: Kind, shape: Shape) -> u8 {
    let own = 1 << kind.wire_type().code();
    let bytes = 1 << WireType::Bytes.code();
    match shape {
        Shape::Map { .. } => bytes,
        Shape::Many { .. } if kind.packable() => own | bytes,
        Shape::Many { .. } | Shape::One { .. } => own,
    }
}

impl Field {
    /// True if a value of the field may come in this wire type.
    #[inline]
    pub(crate) fn accepts(&self, wire_type: WireType) -> bool {
        self.accepts >> wire_type.code() & 1 == 1
    }

    fn new(number: u32, kind: Kind, shape: Shape, json_name: &str, proto_name: &str) -> Self {
        let key = |name: &str| {
            let mut key = b",".to_vec();
            crate::text::quote(name, &mut key);
            key.push(b':');
            key.into_boxed_slice()
        };
        let tag = match shape {
            Shape::Map { .. } => Tag::new(number, WireType::Bytes),
            Shape::One { .. } | Shape::Many { .. } => Tag::new(number, kind.wire_type()),
        };
        let packed = shape == Shape::Many { packed: true };
        Field {
            number,
            kind,
            shape,
            index: 0,
            slot: 0,
            in_oneof: false,
            required: false,
            closed: false,
            accepts: accepts(kind, shape),
            name: json_name.into(),
            proto_name: proto_name.into(),
            json_key: key(json_name),
            proto_key: key(proto_name),
            tag,
            list_tag: if packed { Tag::new(number, WireType::Bytes) } else { tag },
        }
    }
}

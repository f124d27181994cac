//! A specification's schema in rust-protobuf: messages that are built and parsed by field names.

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use protobuf::reflect::{FileDescriptor, MessageDescriptor, ReflectValueBox};
use protobuf::{Enum as _, MessageDyn};

pub(crate) struct Schema(FileDescriptor);

/// A message that is being built.
pub(crate) struct Fields {
    kind: MessageDescriptor,
    pub(crate) message: Box<dyn MessageDyn>,
}

fn field(line: &str) -> FieldDescriptorProto {
    let words: Vec<&str> = line
        .split([' ', '=', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    let [label, kind, name, number] = words[..] else {
        panic!("{line}")
    };
    let mut field = FieldDescriptorProto::new();
    field.set_name(name.into());
    field.set_number(number.parse().expect("a number"));
    let label = Label::from_str(&format!("LABEL_{}", label.to_uppercase()));
    field.set_label(label.expect("a label"));
    if kind.starts_with(char::is_uppercase) {
        field.set_type(Type::TYPE_MESSAGE);
        field.set_type_name(format!(".{kind}"));
    } else {
        let scalar = Type::from_str(&format!("TYPE_{}", kind.to_uppercase()));
        field.set_type(scalar.expect("a type"));
    }
    field
}

impl Schema {
    /// Parses messages without nesting, a field a line.
    pub(crate) fn new(text: &str) -> Self {
        let mut file = FileDescriptorProto::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("message ") {
                let mut message = DescriptorProto::new();
                message.set_name(name.trim_end_matches(" {").into());
                file.message_type.push(message);
            } else if line != "}" {
                let message = file.message_type.last_mut().expect("a message around it");
                message.field.push(field(line));
            }
        }
        Self(FileDescriptor::new_dynamic(file, &[]).expect("a schema"))
    }

    pub(crate) fn message(&self, name: &str) -> Fields {
        let kind = self.0.message_by_package_relative_name(name);
        let kind = kind.unwrap_or_else(|| panic!("no message {name}"));
        let message = kind.new_instance();
        Fields { kind, message }
    }

    /// Parses these bytes and encodes the result again.
    pub(crate) fn read_and_write(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let kind = self.message(name).kind;
        let message = kind.parse_from_bytes(bytes).expect("a message");
        message.write_to_bytes_dyn().expect("all that is required")
    }
}

impl Fields {
    pub(crate) fn set(mut self, name: &str, value: Option<impl Into<ReflectValueBox>>) -> Self {
        let field = self.kind.field_by_name(name);
        let field = field.unwrap_or_else(|| panic!("no field {name}"));
        if let Some(value) = value {
            field.set_singular_field(&mut *self.message, value.into());
        }
        self
    }

    pub(crate) fn push(mut self, name: &str, values: impl IntoIterator<Item = ReflectValueBox>) -> Self {
        let field = self.kind.field_by_name(name);
        let field = field.unwrap_or_else(|| panic!("no field {name}"));
        let mut repeated = field.mut_repeated(&mut *self.message);
        values.into_iter().for_each(|value| repeated.push(value));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.message.write_to_bytes_dyn().expect("all that is required")
    }
}

impl From<Fields> for ReflectValueBox {
    fn from(fields: Fields) -> Self {
        Self::Message(fields.message)
    }
}

//! The schemas of the transcoder's own tests, compiled once.

use std::path::Path;

use prost_reflect::DescriptorPool;

/// What one file describes, with all that it imports.
pub(crate) fn pool(folder: &str, file: &str) -> DescriptorPool {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transcode/tests/schema");
    let mut compiler = protox::Compiler::new([schemas.join(folder), schemas]).expect("no schemas");
    let set = compiler.include_imports(true).open_file(file).expect("no schema").encode_file_descriptor_set();
    DescriptorPool::decode(set.as_slice()).expect("not a schema")
}

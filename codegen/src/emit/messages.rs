//! Messages by prost, their JSON by pbjson.

use std::collections::BTreeMap;

use prost_build::Module;

use crate::errors::{Errors, Problem};
use crate::names::OWN_WELL_KNOWN;
use crate::tree::Tree;

/// The source of every package, so far.
pub(crate) fn emit(tree: &Tree) -> Result<BTreeMap<String, String>, Errors> {
    let own = |name: &str| (format!(".google.protobuf.{name}"), format!("crate::wkt::{name}"));
    let mut external = vec![(".google.protobuf".to_owned(), "::pbjson_types".to_owned())];
    external.extend(OWN_WELL_KNOWN.iter().map(|name| own(name)));

    let mut prost = prost_build::Config::new();
    prost.compile_well_known_types().btree_map(["."]).enable_type_names();
    for (proto, rust) in &external {
        prost.extern_path(proto, rust);
    }
    // The imports go along, because whether a message is `Copy` depends on what it is made of.
    let request = |file: prost_reflect::FileDescriptor| {
        (Module::from_protobuf_package_name(file.package_name()), file.file_descriptor_proto().clone())
    };
    let requests = tree.pool.files().map(request).collect();
    let fault = |error: std::io::Error| Errors::from(Problem::of_file("proto", error.to_string()));
    let mut modules = prost.generate(requests).map_err(fault)?;

    let mut json = pbjson_build::Builder::new();
    json.btree_map(["."]);
    for (proto, rust) in external {
        json.extern_path(proto, rust);
    }
    for file in tree.pool.files() {
        json.register_file_descriptor(file.file_descriptor_proto().clone());
    }
    let mut sources = BTreeMap::new();
    for name in tree.packages.keys() {
        let mut source = modules.remove(&Module::from_protobuf_package_name(name)).unwrap_or_default();
        let prefix = format!(".{name}");
        let escaped = name.split('.').map(crate::names::snake).collect::<Vec<_>>().join(".");
        for (package, bytes) in json.generate(&[prefix], |_| Ok(Vec::new())).map_err(fault)? {
            // A prefix also covers the packages below it, which have their own turn.
            if package.to_string() == escaped {
                source.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        sources.insert(name.clone(), source);
    }
    Ok(sources)
}

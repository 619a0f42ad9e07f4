//! A contract tree of one file beside the option definitions of the project, in a folder that goes away.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};

pub struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// A tree whose package `stoa.test.v1` has this body.
    pub fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        for part in ["google", "buf", "stoa/contract"] {
            copy(&real.join(part), &folder.path().join("proto").join(part));
        }
        let sandbox = Self { folder };
        sandbox.write(body);
        std::fs::create_dir(sandbox.out()).unwrap();
        sandbox
    }

    /// Replaces the body of the package.
    pub fn write(&self, body: &str) {
        let header = "syntax = \"proto3\"; package stoa.test.v1;
            import \"buf/validate/validate.proto\"; import \"google/api/annotations.proto\"; import \"google/protobuf/duration.proto\";
            import \"google/protobuf/field_mask.proto\"; import \"google/protobuf/timestamp.proto\"; import \"stoa/contract/v1/options.proto\";";
        let file = self.folder.path().join("proto/stoa/test/v1/test.proto");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!("{header}\n{body}\n")).unwrap();
    }

    pub fn compile(&self) -> Result<(), codegen::Errors> {
        codegen::compile(&self.folder.path().join("proto"), &self.out())
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

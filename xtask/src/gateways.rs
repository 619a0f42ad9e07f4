//! The gateways of others that ours is measured beside and compared with, and what all of them are told of the service behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::{Run, tail};
use crate::paths;
use crate::tools::{BUF, ENVOY, Had};

/// The first time it downloads and compiles a gRPC for Go.
const BUILD: Duration = Duration::from_secs(420);

/// What the program of grpc-gateway is generated with, as its `go.mod` names them.
const PLUGINS: [&str; 3] = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
    "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway",
];

/// Their versions, for whoever reads the figures.
const VERSIONS: &str = "{{.Path}} {{.Version}}";

/// The descriptors of a service of `integration/gateway` with all imports, in a file.
pub(crate) fn descriptors(service: &str) -> Result<PathBuf> {
    let mut compiler = protox::Compiler::new([sources(), paths::root().join("proto")])?;
    compiler.include_imports(true);
    compiler.open_file(sources().join(format!("{service}.proto")))?;
    let file = folder()?.join(format!("{service}.binpb"));
    fs::write(&file, compiler.encode_file_descriptor_set())?;
    Ok(file)
}

/// Envoy.
pub(crate) fn envoy() -> Result<Had> {
    ENVOY.get()
}

/// A program of grpc-gateway, built.
pub(crate) fn grpc_gateway() -> Result<Had> {
    let buf = match BUF.get()? {
        Had::Ready(buf) => buf,
        Had::Missing(reason) => return Ok(Had::Missing(reason)),
    };
    let folder = folder()?.join("grpc-gateway");
    if !folder.exists() {
        println!("    building grpc-gateway (at most 7 minutes)");
    }
    // Always: it is a matter of seconds when nothing has changed, and never stale.
    Ok(match build(&folder, &buf) {
        Ok(program) => Had::Ready(program),
        Err(error) => Had::Missing(format!("grpc-gateway cannot be built: {error:#}")),
    })
}

fn sources() -> PathBuf {
    paths::root().join("integration/gateway")
}

fn folder() -> Result<PathBuf> {
    let folder = paths::tools().join("gateways");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Its sources are ours and what is generated beside them.
fn build(folder: &Path, buf: &Path) -> Result<PathBuf> {
    let proto = folder.join("proto");
    fs::create_dir_all(proto.join("google/api"))?;
    for file in ["main.go", "go.mod", "go.sum", "buf.gen.yaml"] {
        fs::copy(sources().join("grpc-gateway").join(file), folder.join(file))?;
    }
    fs::copy(sources().join("library.proto"), proto.join("library.proto"))?;
    for file in ["google/api/annotations.proto", "google/api/http.proto"] {
        fs::copy(paths::root().join("proto").join(file), proto.join(file))?;
    }
    go(folder, [&["build", "-o", "bin/"][..], &PLUGINS].concat())?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let generate = Run::new("build-grpc-gateway", buf).args(["generate", "proto", "--path", "proto/library.proto"]);
    let cache = paths::tools().join("buf-cache");
    let ended = generate.env("PATH", path).env("BUF_CACHE_DIR", cache).folder(folder).limit(BUILD).end()?;
    ensure!(ended.success, "{}", tail(&ended.output, 3));
    go(folder, ["build", "-o", "grpc-gateway", "."])?;
    let said = go(folder, ["list", "-m", "-f", VERSIONS, "github.com/grpc-ecosystem/grpc-gateway/v2"])?;
    println!("{}", said.lines().next_back().context("it has no version")?);
    Ok(folder.join("grpc-gateway"))
}

/// What `go` answers in the program's folder.
fn go(folder: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    let ended = Run::new("build-grpc-gateway", "go").args(arguments).folder(folder).limit(BUILD).end()?;
    ensure!(ended.success, "{}", tail(&ended.output, 3));
    Ok(ended.output)
}

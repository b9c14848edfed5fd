//! Layouts made here, unpacked by the code of production.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

/// A tar file with these entries; a name that ends in `/` is a folder.
fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}

fn put(folder: &Path, content: &[u8]) -> serde_json::Value {
    let digest = hex::encode(Sha256::digest(content));
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&digest), content).unwrap();
    json!({"digest": format!("sha256:{digest}"), "size": content.len(),
           "mediaType": "application/vnd.oci.image.layer.v1.tar"})
}

/// A layout with one image of these layers; its config is not looked at.
fn layout(folder: &Path, layers: &[Vec<u8>]) {
    let layers: Vec<_> = layers.iter().map(|layer| put(folder, layer)).collect();
    let config = put(folder, b"{}");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    let mut descriptor = put(folder, manifest.to_string().as_bytes());
    descriptor["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), "{}").unwrap();
}

fn wanted(image: String) -> Wanted {
    Wanted { image, path: None, policy: "IfNotPresent".into(), credentials: None }
}

struct Case {
    _folder: tempfile::TempDir,
    images: Images,
    layout: PathBuf,
}

impl Case {
    fn new(layers: &[Vec<u8>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layout");
        fs::create_dir(&path).unwrap();
        layout(&path, layers);
        let images = Images::open(&folder.path().join("images")).unwrap();
        Self { _folder: folder, images, layout: path }
    }

    async fn ensure(&self) -> Result<DiskImage, ImageError> {
        self.images.ensure(&wanted(format!("oci:{}:v1", self.layout.display()))).await
    }
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; 300_000];
    disk[299_000] = 7;
    disk
}

#[tokio::test]
async fn the_disk_of_a_layout_is_unpacked_once() {
    let first = tar_of(&[("disk/", b""), ("disk/guest.img", &disk()), ("other", b"x")]);
    let case = Case::new(&[gzip(&first), zstd::encode_all(&tar_of(&[("etc/x", b"y")])[..], 1).unwrap()]);
    let found = case.ensure().await.unwrap();
    assert!(found.fresh);
    assert_eq!(found.format, DiskFormat::Raw);
    assert_eq!(fs::read(&found.file).unwrap(), disk());
    assert!(!case.ensure().await.unwrap().fresh);
    let used = BTreeSet::from([found.digest.clone()]);
    case.images.retain(&BTreeSet::new(), &used).unwrap();
    assert!(found.file.exists());
    case.images.retain(&BTreeSet::new(), &BTreeSet::new()).unwrap();
    assert!(!found.file.exists());
}

#[tokio::test]
async fn upper_layers_replace_and_remove() {
    let lower = tar_of(&[("disk/a.img", b"old"), ("./disk/b.img", b"b")]);
    let upper = tar_of(&[("disk/.wh.b.img", b""), ("disk/a.img", b"new")]);
    let case = Case::new(&[lower.clone(), upper]);
    let found = case.ensure().await.unwrap();
    assert_eq!(fs::read(found.file).unwrap(), b"new");
    let opaque = tar_of(&[("disk/.wh..wh..opq", b""), ("disk/c.img", b"c")]);
    let case = Case::new(&[lower, opaque]);
    let found = case.ensure().await.unwrap();
    assert_eq!(fs::read(found.file).unwrap(), b"c");
}

#[tokio::test]
async fn what_is_wrong_with_an_image_is_said() {
    let message = |error: ImageError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let error = Case::new(&[tar_of(&[("etc/x", b"y")])]).ensure().await.unwrap_err();
    assert_eq!(message(error), "the image has no disk: no file at /disk");
    let two = Case::new(&[tar_of(&[("disk/a", b"y"), ("disk/b", b"y")])]).ensure().await.unwrap_err();
    assert!(message(two).contains("(/disk/a, /disk/b)"));
    let case = Case::new(&[tar_of(&[("disk/a", b"y")])]);
    let blob = fs::read_dir(case.layout.join("blobs/sha256")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        (fs::metadata(&path).unwrap().len() > 1000).then_some(path)
    });
    let blob = blob.unwrap();
    let mut content = fs::read(&blob).unwrap();
    content[512] = b'z';
    fs::write(&blob, content).unwrap();
    assert!(message(case.ensure().await.unwrap_err()).contains("is damaged"));
    fs::remove_file(blob).unwrap();
    assert!(message(case.ensure().await.unwrap_err()).contains("is missing"));
    let missing = case.images.ensure(&wanted("oci:/nowhere/at/all".into())).await.unwrap_err();
    assert!(message(missing).contains("no OCI image layout"));
    let tag = case.images.ensure(&wanted(format!("oci:{}:v9", case.layout.display()))).await.unwrap_err();
    assert_eq!(message(tag), "no image for tag `v9`; there are v1");
    let never = Wanted { policy: "Never".into(), ..wanted("registry.invalid/x:1".into()) };
    assert!(matches!(case.images.ensure(&never).await, Err(ImageError::NeverPull(_))));
    assert_eq!(fs::read_dir(case.images.folder).unwrap().count(), 1, "only refs is left");
}

#[tokio::test]
async fn an_archive_is_a_layout_too() {
    let case = Case::new(&[tar_of(&[("disk/a.img", &disk())])]);
    let archive = case.layout.with_extension("tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all(".", &case.layout).unwrap();
    builder.finish().unwrap();
    let found = case.images.ensure(&wanted(format!("oci-archive:{}", archive.display()))).await.unwrap();
    assert_eq!(fs::read(found.file).unwrap(), disk());
}

#[tokio::test]
async fn errors_do_not_quote_the_files_of_the_host() {
    const SECRET: &str = "root:$6$hash:19000:0:99999:7:::";
    let case = Case::new(&[SECRET.repeat(64).into_bytes()]);
    let text = case.layout.join("shadow");
    fs::write(&text, SECRET.repeat(64)).unwrap();
    let message = |error: ImageError| {
        let message = crate::host::chain(&error);
        assert!(!message.contains("root") && !message.contains("hash"), "{message}");
        message
    };
    let error = case.images.ensure(&wanted(format!("oci-archive:{}", text.display()))).await.unwrap_err();
    assert_eq!(message(error), format!("`{}` is not a tar archive", text.display()));
    let error = case.images.ensure(&wanted("oci-archive:/dev/null".into())).await.unwrap_err();
    assert_eq!(message(error), "`/dev/null` is not a tar archive");
    assert!(message(case.ensure().await.unwrap_err()).contains("failed to unpack layer"));
    for content in [SECRET.to_owned(), json!(SECRET).to_string(), json!({"schemaVersion": SECRET}).to_string()] {
        fs::write(case.layout.join("index.json"), content).unwrap();
        assert!(message(case.ensure().await.unwrap_err()).contains("index.json cannot be read: it is not"));
    }
}

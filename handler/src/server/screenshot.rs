//! A picture of a VM's screen: taken as one more viewer of RFB (RFC 6143), who disturbs no other.

use std::io;
use std::path::Path as FilePath;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_agent::beneath;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::verbs::absent;
use super::{Serving, refuse};

/// Until there is a picture.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest screen, in pixels: 8K.
const LARGEST: usize = 7680 * 4320;
/// Version, which is also our answer.
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security type: none, for the socket is only ours.
const NO_SECURITY: u8 = 1;
/// SetPixelFormat: 32 bits, of them 24 of depth, little endian, true colour, and where red, green and blue are.
const PIXELS: [u8; 20] = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
/// SetEncodings: raw pixels, and to be told when the screen becomes another size, as one does that starts.
const ENCODINGS: [u8; 12] = [2, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21];
/// The encoding of a rectangle of pixels.
const RAW: i32 = 0;
/// The encoding of a rectangle that is no pixels, but the size of the screen from here on (section 7.8.2).
const DESKTOP_SIZE: i32 = -223;

/// How to take it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Move the pointer first, which wakes a guest that has switched its screen off.
    #[serde(default)]
    move_cursor: bool,
}

/// The screen as PNG.
pub async fn screenshot(
    State(serving): State<Serving>,
    Path((namespace, name)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Response {
    let Some(entry) = serving.running.get(&namespace, &name) else { return absent(&name) };
    let taken = async {
        let mut screen = beneath::connect(&entry.private, &FilePath::new(&entry.uid).join("virt-vnc")).await?;
        let picture = take(&mut screen, options.move_cursor).await?;
        picture.png()
    };
    match timeout(DEADLINE, taken).await {
        Ok(Ok(png)) => ([(header::CONTENT_TYPE, "image/png")], png).into_response(),
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            refuse(StatusCode::CONFLICT, "VMI is not running")
        }
        Ok(Err(error)) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to take a picture of the screen: {error}"))
        }
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "failed to take a picture of the screen: no answer in time")
        }
    }
}

/// A picture, 3 bytes for each pixel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    /// Which pixels came.
    seen: Vec<bool>,
    /// How many did not.
    missing: usize,
}

impl Picture {
    /// A black one.
    fn new(width: usize, height: usize) -> io::Result<Self> {
        if width == 0 || height == 0 || width * height > LARGEST {
            return Err(wrong(format!("a screen of {width}x{height} pixels")));
        }
        let missing = width * height;
        Ok(Self { width, height, pixels: vec![0; missing * 3], seen: vec![false; missing], missing })
    }

    fn png(&self) -> io::Result<Vec<u8>> {
        let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, size(self.width)?, size(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.pixels))
            .map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Whether a rectangle is pixels of this picture.
    fn check(&self, area: Area, encoding: i32) -> io::Result<()> {
        let inside = area.x + area.width <= self.width && area.y + area.height <= self.height;
        if encoding != RAW || !inside || area.width == 0 {
            return Err(wrong("a rectangle that was not asked for"));
        }
        Ok(())
    }

    /// Puts a rectangle of raw pixels, 4 bytes each, where it belongs.
    fn put(&mut self, area: Area, raw: &[u8]) {
        for (row, line) in raw.chunks_exact(area.width * 4).enumerate() {
            let start = (area.y + row) * self.width + area.x;
            let Some(target) = self.pixels.get_mut(start * 3..(start + area.width) * 3) else { return };
            for (pixel, raw) in target.chunks_exact_mut(3).zip(line.chunks_exact(4)) {
                if let ([red, green, blue], [b, g, r, _]) = (pixel, raw) {
                    (*red, *green, *blue) = (*r, *g, *b);
                }
            }
            for seen in self.seen.iter_mut().skip(start).take(area.width).filter(|seen| !**seen) {
                *seen = true;
                self.missing -= 1;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Area {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// Takes the picture.
async fn take(screen: &mut (impl AsyncRead + AsyncWrite + Unpin), move_cursor: bool) -> io::Result<Picture> {
    let mut picture = greet(screen).await?;
    screen.write_all(&PIXELS).await?;
    screen.write_all(&ENCODINGS).await?;
    if move_cursor {
        // PointerEvent without a button, at two places.
        screen.write_all(&[5, 0, 0, 1, 0, 1]).await?;
        screen.write_all(&[5, 0, 0, 0, 0, 0]).await?;
    }
    request(screen, &picture).await?;
    while picture.missing > 0 {
        match screen.read_u8().await? {
            // FramebufferUpdate.
            0 => {
                screen.read_u8().await?;
                for _ in 0..screen.read_u16().await? {
                    let (area, encoding) = rectangle(screen).await?;
                    if encoding == DESKTOP_SIZE {
                        picture = Picture::new(area.width, area.height)?;
                        request(screen, &picture).await?;
                        continue;
                    }
                    picture.check(area, encoding)?;
                    let mut raw = vec![0; area.width * area.height * 4];
                    screen.read_exact(&mut raw).await?;
                    picture.put(area, &raw);
                }
            }
            // Bell.
            2 => {}
            // ServerCutText: of no interest.
            3 => {
                screen.read_exact(&mut [0; 3]).await?;
                let length = u64::from(screen.read_u32().await?);
                tokio::io::copy(&mut screen.take(length), &mut tokio::io::sink()).await?;
            }
            other => return Err(wrong(format!("message {other} is none that was asked for"))),
        }
    }
    Ok(picture)
}

/// Shakes hands; a black picture of the screen's size.
async fn greet(screen: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Picture> {
    let mut version = [0; 12];
    screen.read_exact(&mut version).await?;
    if &version != VERSION {
        return Err(wrong("it does not speak RFB 3.8"));
    }
    screen.write_all(VERSION).await?;
    let mut types = vec![0; usize::from(screen.read_u8().await?)];
    screen.read_exact(&mut types).await?;
    if !types.contains(&NO_SECURITY) {
        return Err(wrong("it does not let us in"));
    }
    screen.write_all(&[NO_SECURITY]).await?;
    if screen.read_u32().await? != 0 {
        return Err(wrong("it does not let us in"));
    }
    // ClientInit: shared with other viewers.
    screen.write_all(&[1]).await?;
    let (width, height) = (usize::from(screen.read_u16().await?), usize::from(screen.read_u16().await?));
    screen.read_exact(&mut [0; 16]).await?;
    let mut name = vec![0; usize::try_from(screen.read_u32().await?.min(4096)).map_err(io::Error::other)?];
    screen.read_exact(&mut name).await?;
    Picture::new(width, height)
}

/// FramebufferUpdateRequest of everything, changed or not.
async fn request(screen: &mut (impl AsyncWrite + Unpin), picture: &Picture) -> io::Result<()> {
    let (width, height) = (u16_of(picture.width), u16_of(picture.height));
    screen.write_all(&[[3, 0, 0, 0, 0, 0].as_slice(), &width, &height].concat()).await
}

/// Where a rectangle is, and how what follows is encoded.
async fn rectangle(screen: &mut (impl AsyncRead + Unpin)) -> io::Result<(Area, i32)> {
    let mut number = async || io::Result::Ok(usize::from(screen.read_u16().await?));
    let area = Area { x: number().await?, y: number().await?, width: number().await?, height: number().await? };
    Ok((area, screen.read_i32().await?))
}

fn u16_of(size: usize) -> [u8; 2] {
    u16::try_from(size).unwrap_or(u16::MAX).to_be_bytes()
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What a screen of 2x2 pixels says: its greeting, then the upper and the lower half, with a bell between.
    fn said(version: &[u8; 12], width: u16) -> Vec<u8> {
        let mut said = version.to_vec();
        said.extend([1, NO_SECURITY, 0, 0, 0, 0]);
        said.extend(width.to_be_bytes());
        said.extend([0, 2]);
        said.extend([0; 16]);
        said.extend([0, 0, 0, 1, b'x']);
        said.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0]);
        said.extend([3, 2, 1, 0, 6, 5, 4, 0]);
        said.push(2);
        said.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 0, 0]);
        said.extend([9, 8, 7, 0, 12, 11, 10, 0]);
        said
    }

    async fn picture_of(said: &[u8]) -> io::Result<Picture> {
        let (mut near, mut far) = tokio::io::duplex(1 << 12);
        far.write_all(said).await.unwrap();
        take(&mut near, true).await
    }

    #[tokio::test]
    async fn a_screen_becomes_a_picture() {
        let picture = picture_of(&said(VERSION, 2)).await.unwrap();
        assert_eq!(picture.pixels, (1..=12).collect::<Vec<u8>>());
        let png = picture.png().unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, pixels), (2, 2, picture.pixels));
    }

    /// A guest that starts goes from one mode of its screen to another.
    #[tokio::test]
    async fn the_screen_may_become_another_size() {
        let mut said = said(VERSION, 2);
        // After the upper half of the old one: two pixels in a row, of which the first comes twice.
        said.truncate(said.len() - 24 - 1);
        let size = DESKTOP_SIZE.to_be_bytes();
        said.extend([[0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 1].as_slice(), &size].concat());
        for (x, colour) in [(0, 1), (0, 2), (1, 3)] {
            said.extend([0, 0, 0, 1, 0, x, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, colour, colour, colour, 0]);
        }
        let picture = picture_of(&said).await.unwrap();
        assert_eq!((picture.width, picture.height, picture.pixels), (2, 1, vec![2, 2, 2, 3, 3, 3]));
    }

    #[tokio::test]
    async fn what_is_no_screen_is_refused() {
        for (said, why) in [
            (said(b"RFB 003.003\n", 2), "it does not speak RFB 3.8"),
            (said(VERSION, 0), "a screen of 0x2 pixels"),
            (said(VERSION, 1), "a rectangle that was not asked for"),
        ] {
            assert_eq!(picture_of(&said).await.err().unwrap().to_string(), why);
        }
    }
}

//! A file on its way to a visitor: read part by part, no faster than the tunnel takes it.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, Take};
use tokio_util::io::ReaderStream;

/// How much is read at once: enough that a read costs little, and less than a tunnel's window.
const PART: usize = 64 * 1024;

/// A range of a file. Memory holds one part of it.
#[derive(Debug)]
pub(super) struct FileBody {
    parts: ReaderStream<Take<tokio::fs::File>>,
    left: u64,
}

impl FileBody {
    pub(super) async fn open(file: File, range: Range<u64>) -> io::Result<Self> {
        let mut file = tokio::fs::File::from_std(file);
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).await?;
        }
        let left = range.end - range.start;
        Ok(Self { parts: ReaderStream::with_capacity(file.take(left), PART), left })
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let part = match ready!(Pin::new(&mut self.parts).poll_next(cx)) {
            Some(part) => part?,
            // The length is announced. A shorter body must not look whole.
            None => return Poll::Ready(Some(Err(io::Error::other("the file became shorter while it was sent")))),
        };
        self.left = self.left.saturating_sub(part.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

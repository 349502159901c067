//! Requests as they end, a line of JSON each, for as long as whoever asked reads them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::Body as AnyBody;
use axum::extract::State;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::{Body, Frame};

use super::{AdminState, failed};
use crate::report::TailFilter;
use crate::tail::Watch;

/// Lines that are ready are sent together, up to about as many bytes.
const FRAME_BYTES: usize = 16 * 1024;

pub(super) async fn follow(
    State(state): State<Arc<AdminState>>,
    Json(filter): Json<TailFilter>,
) -> Result<Response<AnyBody>, (StatusCode, String)> {
    let busy = (StatusCode::SERVICE_UNAVAILABLE, "as many look at requests already as may; try again later".to_owned());
    let watch = state.edge.tail().watch(filter).ok_or(busy)?;
    let response = Response::builder().header(header::CONTENT_TYPE, "application/x-ndjson");
    response.body(AnyBody::new(Lines(watch))).map_err(|error| failed(error.into()))
}

/// It has no end of its own: hyper drops it when its reader goes.
struct Lines(Watch);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut bytes = Vec::new();
        while bytes.len() < FRAME_BYTES
            && let Poll::Ready(line) = self.0.poll_next(context)
        {
            // A line of ours has nothing that JSON could not say.
            let _ = serde_json::to_writer(&mut bytes, &line);
            bytes.push(b'\n');
        }
        if bytes.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes))))) }
    }
}

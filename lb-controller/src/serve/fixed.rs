//! Answers that a route has by itself: redirects, and what is always the same.

use http::{HeaderValue, Response, StatusCode, header};
use lb_policy::Permit;

use crate::config::{FixedResponse, Redirect, Route, own_value};
use crate::serve::body::ResponseBody;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;

/// Sends the client elsewhere. `permit` proves that the rules let its request pass.
///
/// Of what the client sent, the path and the query alone come back to it, the path in the form that backends receive: it
/// begins with one slash and names no host, so nobody is led astray by a link (CWE-601).
pub(super) fn redirect(
    permit: Permit,
    route: &Route,
    redirect: &Redirect,
    request: &Inbound,
) -> Result<Response<ResponseBody>, Refusal> {
    let Permit { .. } = permit;
    let mut location = redirect.origin.clone().unwrap_or_default();
    let (path, query) = split_target(&request.target);
    match &redirect.path {
        Some(template) => location.push_str(&template.expand(&route.matcher.path, path)),
        None => location.push_str(path),
    }
    if redirect.keeps_query {
        location.push_str(query);
    }
    let location = HeaderValue::try_from(location).map_err(|_| Refusal::Malformed("The request target is none."))?;
    let mut response = answer(route, redirect.status);
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// What is always the same. `permit` as in [`redirect`].
pub(super) fn respond(permit: Permit, route: &Route, fixed: &FixedResponse) -> Response<ResponseBody> {
    let Permit { .. } = permit;
    let mut response = answer(route, fixed.status).map(|_| ResponseBody::from(fixed.body.clone()));
    if let Some(content_type) = &fixed.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, own_value(content_type));
    }
    response
}

fn answer(route: &Route, status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = status;
    if !route.public {
        // No cache asks whether whoever comes next is logged in.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The path of a target, and its query with the `?`, or nothing.
pub(super) fn split_target(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

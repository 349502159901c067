//! What the demo tells whoever started it.

use anyhow::{Context, Result};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::account::USER;
use super::place::{Host, Place};
use super::scene::Scene;
use crate::run;

pub(crate) fn print(scene: &Scene) -> Result<()> {
    let url = |path| Place::url(scene.place.edge(), path);
    let password = &scene.account.password;
    println!("\nThe edge answers at {}  (self-signed certificate)", url("/"));
    if let Some(edge) = scene.place.edge_v6() {
        println!("            and at {}", Place::url(edge, "/"));
    } else {
        println!("This is the L7 part alone, on loopback: XDP and the network around it need root.");
    }
    println!("\n  user        {USER}\n  password    {password}\n  TOTP secret {}", scene.account.secret_base32());
    println!("\nFor an authenticator app:\n{}", qr(&scene.account.otpauth_url()?)?);
    let refund = |amount| format!("curl -sk -c jar -b jar --json '{{\"amount\": {amount}}}' {}", url("/refunds"));
    println!("Try, in another terminal:\n");
    println!("  # 1. log in; a small refund passes");
    println!("  curl -sk -c jar -b jar -d user={USER} -d password={password} {}", url("/.lb/login"));
    println!("  {}\n", refund("20.00"));
    println!("  # 2. a refund over 500.00 needs a fresh code: see the challenge, answer it, send the refund again");
    println!("  challenge=$({} | tee /dev/stderr | grep -o '/.lb/challenge/[0-9a-f]*' | head -1)", refund("900.00"));
    println!("  curl -sk -c jar -b jar -d code={} {}$challenge", code_command(scene), url(""));
    println!("  {}\n", refund("900.00"));
    println!("  # 3. see what the edge counts, and why it decided as it did");
    let controller = run::words(&scene.asking_command());
    println!("  {controller} status");
    println!("  {controller} explain\n");
    println!("Rules are in {}; edits take effect as you save, and what becomes", scene.config_file().display());
    println!("of them is told here.");
    if scene.place == Place::Namespaces {
        let flooder = scene.place.command(Host::Client, "bash");
        println!("A shell on the other client, for floods: {}", run::words(&flooder));
    }
    println!("Ctrl-C removes it all.");
    Ok(())
}

/// The code of the moment, by a program that the edge does not share.
fn code_command(scene: &Scene) -> String {
    match run::find_program("oathtool") {
        Some(_) => format!("$(oathtool --totp -b {})", scene.account.secret_base32()),
        None => "THE_CODE_IN_YOUR_APP".into(),
    }
}

fn qr(url: &str) -> Result<String> {
    let code = QrCode::new(url).context("drawing the QR code")?;
    // Dark on light as scanners want it, on the usual light-on-dark terminal.
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

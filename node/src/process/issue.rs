//! `quorate tls`: makes the CA of a cluster, and certificates of its servers, agents and clients.
//!
//! Any other CA does as well, if its certificates have the names that [`crate::host::tls::holder`] describes.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};
use tokio_rustls::rustls::pki_types::{DnsName, UnixTime};
use x509_parser::pem::parse_x509_pem;

use crate::host::tls::failure::date;
use crate::host::tls::holder::{Holder, Role, role_name};

/// The permissions of a key: it is its owner's alone.
const KEY_MODE: u32 = 0o600;
/// The permissions of a certificate, which everybody may see.
const CERTIFICATE_MODE: u32 = 0o644;
/// A certificate is valid this long before it was made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(24 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// A hundred years.
const DAYS_MAX: u32 = 36_500;
const CA_FILE: &str = "quorate-ca.pem";
const CA_KEY_FILE: &str = "quorate-ca-key.pem";

/// Flags of `quorate tls`.
#[derive(Debug, Args)]
pub struct TlsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a CA: quorate-ca.pem, which all members need, and quorate-ca-key.pem, which only you need
    Ca(CaArgs),
    /// Makes a certificate and its key: DATACENTER-ROLE-NAME.pem and DATACENTER-ROLE-NAME-key.pem
    Cert(CertArgs),
}

#[derive(Debug, Args)]
struct CaArgs {
    /// What it is called in certificates
    #[arg(long, value_name = "TEXT", default_value = "Quorate CA")]
    name: String,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// Where its two files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct CertArgs {
    #[command(flatten)]
    holder: HolderArgs,
    /// The holder's datacenter
    #[arg(long, default_value = "dc1")]
    datacenter: String,
    /// Names and IP addresses by which HTTPS clients reach the holder, beside localhost, 127.0.0.1 and [::1]
    #[arg(long, value_delimiter = ',', value_name = "HOST,...")]
    host: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// The CA's certificate
    #[arg(long, value_name = "FILE", default_value = CA_FILE)]
    ca: PathBuf,
    /// The CA's key
    #[arg(long, value_name = "FILE", default_value = CA_KEY_FILE)]
    ca_key: PathBuf,
    /// Where the two files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct HolderArgs {
    /// For the server of this name (--name), for its port for servers and for HTTPS
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// For the client agent of this name, which hands requests to servers
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// For a client of this name, where HTTPS asks for certificates (--https-client-ca)
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
}

impl HolderArgs {
    fn holder(self, datacenter: String) -> Holder {
        let (role, name) = match (self.server, self.agent, self.client) {
            (Some(name), _, _) => (Role::Server, name),
            (_, Some(name), _) => (Role::Agent, name),
            (_, _, name) => (Role::Client, name.unwrap_or_default()),
        };
        Holder { name, role, datacenter }
    }
}

/// Makes what the command line asks for, and says where it is.
///
/// # Errors
/// A file exists, or cannot be written or read; a name cannot be part of a certificate.
pub fn run(args: TlsArgs) -> io::Result<()> {
    let said = match args.what {
        What::Ca(args) => ca(&args)?,
        What::Cert(args) => certificate(args)?,
    };
    println!("{said}");
    Ok(())
}

fn ca(args: &CaArgs) -> io::Result<String> {
    let files = Files::new(&args.dir, CA_FILE, CA_KEY_FILE)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let until = validity(&mut params, args.days);
    params.distinguished_name = called(&args.name);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(format!(
        "{} is the CA's certificate, which every member needs; valid until {until}.\n{} is its key: whoever has it can \
         make members. Keep it off the servers.",
        files.certificate.display(),
        files.key.display()
    ))
}

fn certificate(args: CertArgs) -> io::Result<String> {
    let holder = args.holder.holder(args.datacenter.to_ascii_lowercase());
    if holder.name.is_empty() || DnsName::try_from(holder.dns_name()).is_err() {
        return Err(io::Error::other(format!(
            "{:?} cannot be the name of a certificate: letters, digits, '-' and '_', none of them '-' at an end",
            holder.dns_name()
        )));
    }
    let base = format!("{}-{}-{}", holder.datacenter, holder.role, holder.name);
    let files = Files::new(&args.dir, &format!("{base}.pem"), &format!("{base}-key.pem"))?;
    let issuer = issuer(&args.ca, &args.ca_key)?;
    let (mut params, key) = (params(&holder, &args.host)?, KeyPair::generate());
    let (until, key) = (validity(&mut params, args.days), key.map_err(io::Error::other)?);
    let made = params.signed_by(&key, &issuer).map_err(io::Error::other)?;
    files.write(&made.pem(), &key.serialize_pem())?;
    Ok(format!(
        "{} is the certificate of the {holder}, valid until {until}; {} is its key.",
        files.certificate.display(),
        files.key.display()
    ))
}

/// The CA, if these are its certificate and its key: what others sign would be trusted by nobody.
fn issuer(ca: &Path, key: &Path) -> io::Result<Issuer<'static, KeyPair>> {
    if let Some(missing) = [ca, key].into_iter().find(|path| !path.exists()) {
        return Err(at(missing, "there is none; `quorate tls ca` makes a CA"));
    }
    let (pem, ca_key) = (read(ca)?, read(key)?);
    let ca_key = KeyPair::from_pem(&ca_key).map_err(|error| at(key, error))?;
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|error| at(ca, error))?;
    let certificate = block.parse_x509().map_err(|error| at(ca, error))?;
    if !certificate.is_ca() {
        return Err(at(ca, "this is no certificate of a CA"));
    }
    if certificate.public_key().raw != ca_key.subject_public_key_info() {
        return Err(at(key, format!("this is not the key of {}", ca.display())));
    }
    Issuer::from_ca_cert_pem(&pem, ca_key).map_err(|error| at(ca, error))
}

/// What a holder's certificate says, beside how long it is valid.
fn params(holder: &Holder, hosts: &[String]) -> io::Result<CertificateParams> {
    let mut names = vec![holder.dns_name()];
    let mut usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if holder.role == Role::Server {
        names.push(role_name(holder.role, &holder.datacenter));
    }
    if holder.role != Role::Client {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let hosts = hosts.iter().map(|host| host.trim()).filter(|host| !host.is_empty());
    names.extend(hosts.map(str::to_owned));
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if DnsName::try_from(name.as_str()).is_ok() => {
                SanType::DnsName(name.try_into().map_err(io::Error::other)?)
            }
            Err(_) => {
                return Err(io::Error::other(format!("--host {name:?}: a name or an IP address")));
            }
        });
    }
    params.extended_key_usages = usages;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = called(&holder.dns_name());
    Ok(params)
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// Sets how long a certificate is valid, and says until when.
fn validity(params: &mut CertificateParams, days: u32) -> String {
    let now = Duration::from_secs(UnixTime::now().as_secs());
    let (from, until) = (now.saturating_sub(BACKDATED), now + DAY * days);
    let epoch = date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + from, epoch + until);
    date(UnixTime::since_unix_epoch(until))
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| at(path, error))
}

fn at(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// A certificate and its key, neither of which may exist.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, certificate: &str, key: &str) -> io::Result<Self> {
        let files = Self { certificate: dir.join(certificate), key: dir.join(key) };
        for path in [&files.certificate, &files.key] {
            if path.symlink_metadata().is_ok() {
                let text =
                    "it exists already and is not overwritten: move it away, or name another --dir";
                return Err(at(path, text));
            }
        }
        Ok(files)
    }

    /// The key first: a certificate without a key would be in the way of a second attempt.
    fn write(&self, certificate: &str, key: &str) -> io::Result<()> {
        for (path, text, mode) in
            [(&self.key, key, KEY_MODE), (&self.certificate, certificate, CERTIFICATE_MODE)]
        {
            let created = File::options().write(true).create_new(true).mode(mode).open(path);
            let mut file = created.map_err(|error| at(path, error))?;
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|e| at(path, e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;

    use super::*;
    use crate::host::tls::credentials::{self, Credentials, NamedFile};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tls: TlsArgs,
    }

    fn quorate_tls(dir: &Path, line: &str) -> io::Result<()> {
        let dir = dir.to_str().unwrap();
        let line = line.replace("DIR", dir);
        let line = ["tls"].into_iter().chain(line.split(' ')).chain(["--dir", dir]);
        run(Line::try_parse_from(line).map_err(io::Error::other)?.tls)
    }

    fn credentials(
        dir: &Path,
        base: &str,
        holder: (Role, &str, &str),
    ) -> Result<Credentials, String> {
        let file = |setting, name: &str| NamedFile { setting, path: dir.join(name) };
        let files = credentials::Files {
            ca: file("--rpc-tls-ca", CA_FILE),
            certificate: file("--rpc-tls-cert", &format!("{base}.pem")),
            key: file("--rpc-tls-key", &format!("{base}-key.pem")),
        };
        let (role, name, datacenter) = holder;
        let (name, datacenter) = (name.to_owned(), datacenter.to_owned());
        Credentials::load(files, Holder { name, role, datacenter })
    }

    const CA: &str = " --ca DIR/quorate-ca.pem --ca-key DIR/quorate-ca-key.pem";

    #[test]
    fn what_it_makes_is_what_a_member_needs() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        quorate_tls(dir, "ca").unwrap();
        quorate_tls(dir, &format!("cert --server n1 --host n1.example,10.0.0.1{CA}")).unwrap();
        quorate_tls(dir, &format!("cert --agent web-3 --datacenter EU{CA}")).unwrap();
        quorate_tls(dir, &format!("cert --client ci{CA}")).unwrap();
        let n1 = credentials(dir, "dc1-server-n1", (Role::Server, "N1", "dc1")).unwrap();
        assert_eq!(n1.expires_soon(), None);
        assert!(credentials(dir, "eu-agent-web-3", (Role::Agent, "web-3", "eu")).is_ok());
        assert!(credentials(dir, "dc1-client-ci", (Role::Client, "ci", "dc1")).is_ok());
        let other = credentials(dir, "dc1-server-n1", (Role::Server, "n2", "dc1")).unwrap_err();
        assert!(other.contains("that of server n1, and this is server n2"), "{other}");
        let elsewhere = credentials(dir, "dc1-server-n1", (Role::Server, "n1", "dc2")).unwrap_err();
        assert!(elsewhere.contains("server.dc2.quorate"), "{elsewhere}");
        for (file, mode) in [
            (CA_KEY_FILE, 0o600),
            (CA_FILE, 0o644),
            ("dc1-server-n1-key.pem", 0o600),
            ("dc1-server-n1.pem", 0o644),
        ] {
            let found = dir.join(file).metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !mode, 0, "{file}: {found:o}");
        }
    }

    #[test]
    fn only_a_ca_issues_and_only_with_its_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let refused = |line: &str| quorate_tls(dir, line).unwrap_err().to_string();
        let told = refused(&format!("cert --server n1{CA}"));
        assert!(told.contains("quorate tls ca"), "{told}");
        quorate_tls(dir, "ca").unwrap();
        quorate_tls(dir, &format!("cert --server n1{CA}")).unwrap();
        let other = "--ca DIR/quorate-ca.pem --ca-key DIR/dc1-server-n1-key.pem";
        let told = refused(&format!("cert --agent web {other}"));
        assert!(told.contains("not the key of"), "{told}");
        let other = "--ca DIR/dc1-server-n1.pem --ca-key DIR/dc1-server-n1-key.pem";
        let told = refused(&format!("cert --agent web {other}"));
        assert!(told.contains("no certificate of a CA"), "{told}");
        assert!(!dir.join("dc1-agent-web.pem").exists());
    }

    #[test]
    fn nothing_is_overwritten_and_what_cannot_be_a_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        quorate_tls(dir, "ca").unwrap();
        let key = std::fs::read(dir.join(CA_KEY_FILE)).unwrap();
        let refused = |line: &str| quorate_tls(dir, line).unwrap_err().to_string();
        assert!(refused("ca").contains("quorate-ca.pem: it exists already"));
        assert_eq!(std::fs::read(dir.join(CA_KEY_FILE)).unwrap(), key);
        std::fs::write(dir.join("dc1-server-n1-key.pem"), "mine").unwrap();
        assert!(
            refused(&format!("cert --server n1{CA}")).contains("n1-key.pem: it exists already")
        );
        assert!(!dir.join("dc1-server-n1.pem").exists());
        for name in ["-n", "a/b", "*", "a..b"] {
            let why = refused(&format!("cert --server={name}{CA}"));
            assert!(why.contains("cannot be the name"), "{name}: {why}");
        }
        assert!(refused(&format!("cert --server n2 --host a/b{CA}")).contains("--host \"a/b\""));
        assert!(
            refused("cert --server n2 --ca DIR/none --ca-key DIR/none")
                .contains("none: there is none")
        );
        assert!(quorate_tls(dir, &format!("cert{CA}")).is_err(), "for nobody");
        assert!(quorate_tls(dir, &format!("cert --server a --client b{CA}")).is_err(), "for two");
    }
}

//! The CGI gateway, driven by hand and by real web servers.

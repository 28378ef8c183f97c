// Package httpsource reads an artifact from an HTTP or HTTPS server as a stream
// that survives broken connections.
//
// After a break, [Source] asks for the rest with Range and If-Range (source:
// RFC 9110, sections 13 and 14). It never joins two versions of a file. What
// it goes on with must be the same by all that is known of it:
//
//   - the length of the whole file,
//   - ETag, else Last-Modified, where the server sends them,
//   - the last bytes that were read before the break, which are asked for once
//     more and compared.
//
// A server that sends the whole file instead is read from its start up to the
// position, but only if ETag or Last-Modified prove that it is the same file.
//
// Without a length and without chunks, the end of the connection is the end of
// the file. One where no artifact can end is taken for a break. A break behind
// many zeros is not told from it.
//
// The server is not trusted to be right or to end. Time without data, time of
// the whole, retries without progress, redirects, headers and buffers have
// limits, see options.go. What the stream holds is checked by its reader.
//
// Errors name the URL without user, password and query, which may be secret.
package httpsource

// Sends a file with tus-js-client as it is, by the options of the first argument, and prints what happens, a line each.
import { createReadStream, statSync } from 'node:fs'
import { Upload } from 'tus-js-client'

const { path, ...options } = JSON.parse(process.argv[2])
const say = (what) => console.log(JSON.stringify(what))

const upload = new Upload(createReadStream(path), {
  ...options,
  uploadSize: statSync(path).size,
  chunkSize: options.chunkSize ?? 64 * 1024 * 1024, // what a stream needs: it is held to be sent again
  storeFingerprintForResuming: false,
  onUploadUrlAvailable: () => say({ url: upload.url }),
  onShouldRetry: (error) => {
    say({ retry: error.message })
    return true
  },
  onAfterResponse: (request, response) =>
    say({ method: request.getMethod(), status: response.getStatus(), offset: response.getHeader('Upload-Offset') }),
  onError: (error) => {
    say({ error: error.message })
    process.exit(1)
  },
  onSuccess: () => say({ success: upload.url }),
})
upload.start()

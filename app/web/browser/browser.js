/* Starts Swagger UI on the contract that lies beside this page. A request that is tried goes to the server that serves it. */
"use strict";

window.ui = window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#browser",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "none",
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});

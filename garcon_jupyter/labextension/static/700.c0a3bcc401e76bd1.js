"use strict";(self.rspackChunkgarcon_jupyter=self.rspackChunkgarcon_jupyter||[]).push([[700],{646(r,o,e){var n=e(601),t=e.n(n),a=e(314),i=(e.n(a))()(t());i.push([r.id,`/* The side bar, in JupyterLab's own colours: light, dark and high contrast come with the theme. */

.grc-panel {
  display: flex;
  flex-direction: column;
  min-width: 240px;
  overflow: hidden;
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
}

.grc-panel p {
  margin: 2px 0;
  line-height: 1.4;
  overflow-wrap: anywhere;
}

.grc-panel button,
.grc-status {
  border: none;
  background: none;
  color: inherit;
  font: inherit;
  text-align: left;
  cursor: pointer;
}

.grc-panel button:focus-visible,
.grc-panel input:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}

.grc-head {
  display: flex;
  align-items: center;
  padding: 8px 8px 4px 12px;
}

.grc-head h2 {
  flex: 1;
  margin: 0;
  font-size: var(--jp-ui-font-size2);
  font-weight: 600;
}

.grc-sections {
  flex: 1;
  overflow-y: auto;
  padding-bottom: 16px;
}

/* -- sections --------------------------------------------------------------------------------- */

.grc-section {
  border-top: 1px solid var(--jp-border-color2);
}

.grc-title {
  display: flex;
  align-items: center;
  gap: 4px;
  width: 100%;
  padding: 6px 12px 6px 6px;
}

.grc-title h3 {
  margin: 0;
  font-size: var(--jp-ui-font-size0);
  font-weight: 600;
  letter-spacing: 0.05em;
  text-transform: uppercase;
}

.grc-title small {
  overflow: hidden;
  color: var(--jp-ui-font-color2);
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-body {
  padding: 0 10px 10px;
}

.grc-caret {
  display: inline-flex;
  flex: none;
  width: 16px;
}

.grc-hint {
  color: var(--jp-ui-font-color2);
}

.grc-problem {
  color: var(--jp-error-color0, var(--jp-error-color1));
}

[data-jp-theme-light='false'] .grc-problem {
  color: var(--jp-error-color2, var(--jp-error-color1));
}

.grc-icon {
  display: inline-flex;
  flex: none;
  align-items: center;
  justify-content: center;
  width: 24px;
  height: 24px;
  border-radius: var(--jp-border-radius);
}

.grc-icon svg {
  width: 15px;
  height: 15px;
}

.grc-icon:hover,
.grc-row:hover:not(:disabled) {
  background: var(--jp-layout-color2);
}

/* -- servers ---------------------------------------------------------------------------------- */

.grc-card {
  margin: 6px 0;
  padding: 4px 6px 8px 10px;
  border: 1px solid var(--jp-border-color2);
  border-left: 3px solid var(--jp-border-color2);
  border-radius: 4px;
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0);
}

.grc-shown {
  border-left-color: var(--jp-brand-color1);
}

.grc-card header,
.grc-fleet header,
.grc-fold {
  display: flex;
  align-items: center;
  gap: 6px;
}

.grc-fold {
  flex: 1;
  min-width: 0;
  padding: 0;
}

.grc-fold small {
  flex: none;
  font-size: var(--jp-ui-font-size0);
  color: var(--jp-ui-font-color2);
}

.grc-card header b,
.grc-fold b {
  flex: 1;
  overflow: hidden;
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
  font-weight: 600;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-dot {
  flex: none;
  width: 8px;
  height: 8px;
  border-radius: 50%;
  background: var(--jp-success-color1);
}

.grc-dot.grc-busy,
.grc-dot.grc-restarting {
  background: var(--jp-warn-color1);
}

.grc-dot.grc-silent {
  background: var(--jp-error-color1);
}

.grc-dot.grc-gone {
  background: var(--jp-border-color1);
}

.grc-soon {
  color: var(--jp-warn-color0, var(--jp-warn-color1));
  font-weight: 600;
}

.grc-ranks summary {
  cursor: pointer;
}

.grc-ranks p {
  padding-left: 12px;
}

.grc-loaded::after {
  content: ' ✓';
  color: var(--jp-success-color1);
}

.grc-fleet {
  margin: 6px 0;
  color: var(--jp-ui-font-color2);
}

.grc-fleet > header {
  padding-right: 7px;
}

.grc-fleet > p {
  padding-left: 22px;
  font-size: var(--jp-ui-font-size0);
}

.grc-fleet > .grc-card {
  margin: 4px 0 4px 8px;
}

.grc-mine {
  color: var(--jp-ui-font-color1);
}

.grc-mine::before {
  content: '✓ ';
  color: var(--jp-success-color1);
}

.grc-work {
  display: flex;
  align-items: center;
  gap: 6px;
}

.grc-what {
  flex: 1;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-spinner,
.grc-waits {
  flex: none;
  width: 8px;
  height: 8px;
  border: 2px solid var(--jp-border-color1);
  border-radius: 50%;
}

.grc-spinner {
  border-top-color: var(--jp-brand-color1);
  animation: grc-turn 1s linear infinite;
}

@keyframes grc-turn {
  to {
    transform: rotate(360deg);
  }
}

@media (prefers-reduced-motion: reduce) {
  .grc-spinner {
    animation: none;
  }
}

.grc-job progress {
  display: block;
  width: 100%;
  height: 6px;
  margin: 4px 0;
  accent-color: var(--jp-brand-color1);
}

.grc-panel .grc-button {
  display: flex;
  align-items: center;
  justify-content: center;
  gap: 4px;
  width: 100%;
  margin-top: 6px;
  padding: 4px 8px;
  border: 1px solid var(--jp-border-color1);
  border-radius: 4px;
  color: var(--jp-ui-font-color1);
  text-align: center;
}

.grc-panel .grc-button:hover {
  background: var(--jp-layout-color2);
}

.grc-panel .grc-main {
  padding: 7px 8px;
  border-color: transparent;
  background: var(--jp-brand-color1);
  color: #fff;
}

.grc-panel .grc-main:hover {
  background: var(--jp-brand-color0);
}

.grc-main .jp-icon3[fill] {
  fill: #fff;
}

.grc-button > span {
  display: inline-flex;
}

/* -- points and recordings -------------------------------------------------------------------- */

.grc-search {
  position: relative;
  display: flex;
  align-items: center;
  margin-bottom: 4px;
}

.grc-search > span {
  position: absolute;
  left: 7px;
  display: inline-flex;
}

.grc-search .grc-icon {
  position: absolute;
  right: 2px;
}

.grc-search input::-webkit-search-cancel-button {
  display: none;
}

.grc-input {
  box-sizing: border-box;
  width: 100%;
  height: 28px;
  padding: 0 8px;
  border: 1px solid var(--jp-border-color1);
  border-radius: 4px;
  background: var(--jp-layout-color0, var(--jp-layout-color1));
  color: var(--jp-ui-font-color1);
  font: inherit;
}

.grc-input::placeholder {
  color: var(--jp-ui-font-color2);
}

.grc-search .grc-input {
  padding: 0 26px;
}

.grc-tree {
  max-height: max(200px, 38vh);
  margin: 0 -4px;
  overflow-y: auto;
}

.grc-row {
  display: flex;
  flex-wrap: wrap;
  align-items: baseline;
  column-gap: 6px;
  box-sizing: border-box;
  width: 100%;
  padding: 3px 6px;
  border-radius: 4px;
}

.grc-row > .grc-caret {
  align-self: center;
}

.grc-row:disabled {
  cursor: default;
}

.grc-group {
  margin-left: 13px;
  padding-left: 5px;
  border-left: 1px solid var(--jp-border-color2);
}

.grc-point {
  position: relative;
}

.grc-point > .grc-icon {
  position: absolute;
  right: 4px;
  bottom: 1px;
  height: 17px;
  background: none;
  opacity: 0.55;
}

.grc-point:hover > .grc-icon,
.grc-point:focus-within > .grc-icon {
  opacity: 1;
}

.grc-point > .grc-icon:hover {
  background: var(--jp-layout-color3);
}

.grc-name {
  flex: 1;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-point .grc-name,
.grc-recording .grc-name {
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-ui-font-size0);
}

.grc-panel .grc-shape {
  flex: none;
  max-width: 55%;
  overflow: hidden;
  padding: 0;
  background: none;
  color: var(--jp-ui-font-color2);
  font-size: 10px;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-meaning {
  flex: 1 0 100%;
  box-sizing: border-box;
  overflow: hidden;
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0);
  text-overflow: ellipsis;
  white-space: nowrap;
}

.grc-point .grc-meaning {
  padding-right: 26px; /* the eye's */
}

/* A row with a whole name: the shape stands below it, beside the eye. */
.grc-whole .grc-name {
  flex: 1 0 100%;
}

.grc-point .grc-whole .grc-meaning {
  flex: 1;
  padding-right: 0;
}

.grc-whole .grc-shape {
  order: 1;
}

.grc-panel .grc-point .grc-whole .grc-shape {
  padding-right: 26px;
}

.grc-probed .grc-name::before {
  content: '● ';
  color: var(--jp-brand-color1);
}

.grc-badge {
  padding: 0 6px;
  border-radius: 8px;
  background: var(--jp-brand-color1);
  color: #fff;
  font-size: 10px;
}

.grc-text {
  display: block;
  margin-top: 8px;
}

.grc-text > span {
  display: block;
  margin-bottom: 2px;
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0);
}

/* -- the launch dialog ------------------------------------------------------------------------ */

.grc-launch {
  width: 440px;
  max-width: 100%;
  overflow-y: auto;
}

.grc-offers {
  display: flex;
  flex-direction: column;
  gap: 2px;
  flex: none;
  max-height: 40vh;
  margin: 0 0 8px;
  padding: 0;
  overflow-y: auto;
  border: none;
}

.grc-offer {
  display: flex;
  align-items: center;
  gap: 10px;
  padding: 8px 10px;
  border: 1px solid var(--jp-border-color2);
  border-radius: 4px;
  cursor: pointer;
}

.grc-offer:has(:checked) {
  border-color: var(--jp-brand-color1);
  background: var(--jp-layout-color2);
}

.grc-offer b,
.grc-offer small {
  display: block;
}

.grc-offer small {
  color: var(--jp-ui-font-color2);
}

.grc-launch .grc-other {
  flex: none;
  margin: 4px 0;
}

.grc-check {
  display: flex;
  align-items: center;
  gap: 8px;
  margin-bottom: 8px;
}

.grc-more summary {
  cursor: pointer;
}

.grc-grid {
  display: grid;
  grid-template-columns: repeat(3, 1fr);
  gap: 8px;
  margin-top: 8px;
}

.grc-grid label > span {
  display: block;
  margin-bottom: 2px;
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0);
}

/* -- the status bar --------------------------------------------------------------------------- */

.grc-status {
  display: inline-flex;
  align-items: center;
  gap: 4px;
  height: 100%;
  padding: 0 4px;
  white-space: nowrap;
}

.grc-status > span {
  display: inline-flex;
}

.grc-status svg {
  width: 14px;
  height: 14px;
}
`,""]),e.d(o,{},{A:i})},314(r){r.exports=function(r){var o=[];return o.toString=function(){return this.map(function(o){var e="",n=void 0!==o[5];return o[4]&&(e+="@supports (".concat(o[4],") {")),o[2]&&(e+="@media ".concat(o[2]," {")),n&&(e+="@layer".concat(o[5].length>0?" ".concat(o[5]):""," {")),e+=r(o),n&&(e+="}"),o[2]&&(e+="}"),o[4]&&(e+="}"),e}).join("")},o.i=function(r,e,n,t,a){"string"==typeof r&&(r=[[null,r,void 0]]);var i={};if(n)for(var c=0;c<this.length;c++){var p=this[c][0];null!=p&&(i[p]=!0)}for(var l=0;l<r.length;l++){var s=[].concat(r[l]);n&&i[s[0]]||(void 0!==a&&(void 0===s[5]||(s[1]="@layer".concat(s[5].length>0?" ".concat(s[5]):""," {").concat(s[1],"}")),s[5]=a),e&&(s[2]&&(s[1]="@media ".concat(s[2]," {").concat(s[1],"}")),s[2]=e),t&&(s[4]?(s[1]="@supports (".concat(s[4],") {").concat(s[1],"}"),s[4]=t):s[4]="".concat(t)),o.push(s))}},o}},601(r){r.exports=function(r){return r[1]}},72(r){var o=[];function e(r){for(var e=-1,n=0;n<o.length;n++)if(o[n].identifier===r){e=n;break}return e}function n(r,n){for(var t={},a=[],i=0;i<r.length;i++){var c=r[i],p=n.base?c[0]+n.base:c[0],l=t[p]||0,s="".concat(p," ").concat(l);t[p]=l+1;var d=e(s),g={css:c[1],media:c[2],sourceMap:c[3],supports:c[4],layer:c[5]};if(-1!==d)o[d].references++,o[d].updater(g);else{var f=function(r,o){var e=o.domAPI(o);return e.update(r),function(o){o?(o.css!==r.css||o.media!==r.media||o.sourceMap!==r.sourceMap||o.supports!==r.supports||o.layer!==r.layer)&&e.update(r=o):e.remove()}}(g,n);n.byIndex=i,o.splice(i,0,{identifier:s,updater:f,references:1})}a.push(s)}return a}r.exports=function(r,t){var a=n(r=r||[],t=t||{});return function(r){r=r||[];for(var i=0;i<a.length;i++){var c=e(a[i]);o[c].references--}for(var p=n(r,t),l=0;l<a.length;l++){var s=e(a[l]);0===o[s].references&&(o[s].updater(),o.splice(s,1))}a=p}}},659(r){var o={};r.exports=function(r,e){var n=function(r){if(void 0===o[r]){var e=document.querySelector(r);if(window.HTMLIFrameElement&&e instanceof window.HTMLIFrameElement)try{e=e.contentDocument.head}catch(r){e=null}o[r]=e}return o[r]}(r);if(!n)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");n.appendChild(e)}},540(r){r.exports=function(r){var o=document.createElement("style");return r.setAttributes(o,r.attributes),r.insert(o,r.options),o}},56(r,o,e){r.exports=function(r){var o=e.nc;o&&r.setAttribute("nonce",o)}},825(r){r.exports=function(r){if("u"<typeof document)return{update:function(){},remove:function(){}};var o=r.insertStyleElement(r);return{update:function(e){var n,t,a;n="",e.supports&&(n+="@supports (".concat(e.supports,") {")),e.media&&(n+="@media ".concat(e.media," {")),(t=void 0!==e.layer)&&(n+="@layer".concat(e.layer.length>0?" ".concat(e.layer):""," {")),n+=e.css,t&&(n+="}"),e.media&&(n+="}"),e.supports&&(n+="}"),(a=e.sourceMap)&&"u">typeof btoa&&(n+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(a))))," */")),r.styleTagTransform(n,o,r.options)},remove:function(){var r;null===(r=o).parentNode||r.parentNode.removeChild(r)}}}},113(r){r.exports=function(r,o){if(o.styleSheet)o.styleSheet.cssText=r;else{for(;o.firstChild;)o.removeChild(o.firstChild);o.appendChild(document.createTextNode(r))}}},959(r,o,e){var n=e(72),t=e.n(n),a=e(825),i=e.n(a),c=e(659),p=e.n(c),l=e(56),s=e.n(l),d=e(540),g=e.n(d),f=e(113),u=e.n(f),x=e(646),h={};h.styleTagTransform=u(),h.setAttributes=s(),h.insert=p().bind(null,"head"),h.domAPI=i(),h.insertStyleElement=g(),t()(x.A,h),x.A&&x.A.locals&&x.A.locals}}]);